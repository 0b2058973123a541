//! What the Dockerfile sets is what the program understands. (`just lint-docker` runs hadolint.)

use crate::support::models::root;
use crate::support::process::rerankd;

#[test]
fn the_images_settings_are_valid() {
    let mut command = rerankd();
    let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let text = text.replace("\\\n", " ");
    let mut found = 0;
    for line in text.lines().filter_map(|l| l.strip_prefix("ENV ")) {
        for (name, value) in line
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            if name.starts_with("RERANKD__") && !value.starts_with('$') {
                command.env(name, value);
                found += 1;
            }
        }
    }
    assert!(found >= 2);
    let output = command.arg("--print-config").output().unwrap();
    let printed: toml::Table = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    assert_eq!(printed["server"]["host"].as_str(), Some("0.0.0.0"));
    let port = printed["server"]["port"].as_integer().unwrap();
    assert!(text.contains(&format!("EXPOSE {port}")));
    assert!(text.contains("HEALTHCHECK") && text.contains("\"health\""));
}
