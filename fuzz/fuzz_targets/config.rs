//! A file of settings and variables, or a file of keys: the first byte chooses. Variables stand behind a line `---`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rerankd::config::Settings;
use rerankd::http::count_keys;
use rerankd_fuzz::{assert_short, checked, choice, written};

/// What variables may begin with; others are the system's.
const VARIABLES: [&str; 5] = ["RERANKD_", "HF_", "MODEL", "PORT", "TEI_"];

fuzz_target!(|input: &[u8]| {
    let Some((what, bytes)) = choice(input, 2) else {
        return;
    };
    if what == 1 {
        checked(count_keys(&written("keys", bytes)));
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    let (file, variables) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let path = written("rerankd.toml", file.as_bytes());
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<_> = variables
        .filter(|(name, value)| {
            VARIABLES.iter().any(|start| name.starts_with(start))
                && !format!("{name}{value}").contains('\0')
        })
        .collect();
    for (name, value) in &variables {
        // SAFETY: this process has no other thread that reads the environment.
        unsafe { std::env::set_var(name, value) };
    }
    let settings = checked(Settings::load(Some(&path), Vec::new()));
    for (name, _) in &variables {
        // SAFETY: as above.
        unsafe { std::env::remove_var(name) };
    }
    let Some(settings) = settings else { return };
    settings
        .warnings()
        .iter()
        .for_each(|warning| assert_short(warning));
    for of_model in settings.of_each_model() {
        let _ = (
            of_model.name(),
            of_model.dtype(),
            of_model.batch(),
            of_model.compression(),
            of_model.fusion(),
        );
    }
    let _ = (
        settings.http(),
        settings.rerank(),
        settings.admission(),
        settings.shutdown(),
    );
    let _ = (
        settings.traces(),
        settings.metric_aliases(),
        settings.memory_budget(),
        settings.body_bytes(0),
    );
    // What is written of the settings is read as the same.
    let shown = settings.to_toml();
    let again = written("shown.toml", shown.as_bytes());
    let again = Settings::load(Some(&again), Vec::new());
    match again {
        Ok(again) => assert_eq!(again.to_toml(), shown),
        Err(error) => panic!("{error}\n{shown}"),
    }
});
