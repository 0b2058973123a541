//! The memory that the process may use, and how much of it bodies may take.

use std::fs;
use std::path::Path;

use super::Settings;
use crate::types::ModelKind;

/// Most bytes of bodies, where memory would allow more.
const MOST: u64 = 256 << 20;
/// Fewest, however little memory there is.
const LEAST: u64 = 8 << 20;
/// What the process takes besides weights, caches and bodies.
const BASE: u64 = 64 << 20;
/// A body takes up to three times its bytes; the rest is room for what else grows under load.
const SHARE: u64 = 4;

impl Settings {
    /// Most bytes of bodies in the server at a time, beside weights and vectors of so many bytes.
    #[must_use]
    pub fn body_bytes(&self, beside: u64) -> usize {
        match self.limits.max_body_bytes_in_flight {
            0 => usize::try_from(self.bodies_within(memory_limit(), beside)).unwrap_or(usize::MAX),
            bytes => bytes,
        }
    }

    /// Whether the bytes of bodies go by the memory that there is.
    #[must_use]
    pub fn fits_bodies(&self) -> bool {
        self.limits.max_body_bytes_in_flight == 0
    }

    fn bodies_within(&self, limit: Option<u64>, beside: u64) -> u64 {
        let Some(limit) = limit else {
            return MOST;
        };
        let weights = beside.max(self.memory_budget().unwrap_or(0));
        let taken = weights + self.cache_bytes() + BASE;
        (limit.saturating_sub(taken) / SHARE).clamp(LEAST, MOST)
    }

    /// Most bytes of vectors that a model of a kind keeps.
    #[must_use]
    pub fn vector_bytes(&self, kind: ModelKind) -> u64 {
        match kind {
            ModelKind::LateInteraction | ModelKind::BiEncoder => self.model.vector_cache_mb << 20,
            ModelKind::CrossEncoder | ModelKind::Listwise => 0,
        }
    }
}

/// The memory that this process may use: the machine's, or less if a cgroup of it has a limit. `None` if that can't be
/// told.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    limit_below(Path::new("/"))
}

/// The same with the system's files below a folder.
fn limit_below(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        // Version 2 has one tree for all controllers, whose name is empty.
        let (tree, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        let tree = root.join(tree);
        let group = tree.join(path.trim_start_matches('/'));
        // The tree's own file is the container's, where the path is that of the host.
        let above = group
            .ancestors()
            .take_while(|folder| folder.starts_with(&tree));
        let limits = above.filter_map(|folder| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            // It is "max" where there is no limit; version 1 has a number near the greatest then.
            text.trim().parse::<u64>().ok()
        });
        limits.min()
    });
    let machine = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let machine = machine.lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        Some(kilobytes.trim().parse::<u64>().ok()? << 10)
    });
    of_groups.chain(machine).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "MemFree: 1 kB\nMemTotal:       24000000 kB\n";

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_below(root.path())
    }

    #[test]
    fn the_lowest_limit_of_the_groups_and_the_machine_counts() {
        let machine = ("proc/meminfo", MACHINE);
        let own = "proc/self/cgroup";
        let v2 = (own, "0::/pod/own\n");
        let v1 = (own, "9:name=systemd:/\n4:memory:/pod/own\n0::/\n");
        for (files, expected) in [
            (vec![], None),
            (vec![machine], Some(24_576_000_000)),
            // A container sees its own group as the tree.
            (
                vec![
                    machine,
                    (own, "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "536870912\n"),
                ],
                Some(512 << 20),
            ),
            (
                vec![
                    machine,
                    v2,
                    ("sys/fs/cgroup/pod/memory.max", "1000\n"),
                    ("sys/fs/cgroup/pod/own/memory.max", "max\n"),
                ],
                Some(1000),
            ),
            (
                vec![
                    machine,
                    v1,
                    (
                        "sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                    (
                        "sys/fs/cgroup/memory/pod/own/memory.limit_in_bytes",
                        "2000\n",
                    ),
                    ("sys/fs/cgroup/memory.max", "1\n"),
                ],
                Some(1),
            ),
            (
                vec![v1, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000\n")],
                Some(3000),
            ),
        ] {
            assert_eq!(limit(&files), expected, "{files:?}");
        }
        assert!(memory_limit().is_some_and(|limit| limit > 1 << 26));
    }

    #[test]
    fn bodies_have_a_quarter_of_what_is_left_beside_the_model() {
        let settings = Settings::load(None, vec![]).unwrap();
        let bodies = |limit, beside| settings.bodies_within(limit, beside) >> 20;
        assert_eq!(bodies(None, 0), 256);
        assert_eq!(bodies(Some(24 << 30), 1 << 30), 256);
        assert_eq!(bodies(Some(512 << 20), 128 << 20), 80);
        assert_eq!(bodies(Some(128 << 20), 1 << 30), 8);
        let set = vec![("limits.max_body_bytes_in_flight", 1000.into())];
        let set = Settings::load(None, set).unwrap();
        assert_eq!((set.body_bytes(1 << 40), set.fits_bodies()), (1000, false));
        let set = vec![
            ("engine.memory_budget_mb", 256.into()),
            ("cache.scores_mb", 64.into()),
        ];
        let set = Settings::load(None, set).unwrap();
        assert_eq!(set.bodies_within(Some(512 << 20), 0) >> 20, 32);
    }
}
