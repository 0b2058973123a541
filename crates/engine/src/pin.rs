//! Threads that stay on CPUs of their own.

use rerankd_kernels::Team;

/// Pins each thread of a team to one of the CPUs that the process may use: those of one node of memory first, and one
/// of each core before a second one of any.
///
/// # Errors
/// Why that can't be.
#[cfg(target_os = "linux")]
pub(super) fn pin(team: &Team) -> Result<(), String> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None).map_err(|e| format!("the CPUs can't be read: {e}"))?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    let order = order(&allowed, &nodes(), siblings);
    if order.len() < team.threads() {
        let (threads, cpus) = (team.threads(), order.len());
        return Err(format!(
            "{threads} threads can't each have one of {cpus} CPUs; set engine.threads"
        ));
    }
    let pinned = team.on_each(|thread| {
        let mut own = CpuSet::new();
        own.set(order[thread]);
        sched_setaffinity(None, &own)
            .map_err(|e| format!("a thread can't be pinned to CPU {}: {e}", order[thread]))
    });
    pinned.into_iter().collect::<Result<(), String>>()?;
    tracing::info!(cpus = ?&order[..team.threads()], "pinned the engine's threads");
    Ok(())
}

/// See above.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_: &Team) -> Result<(), String> {
    Err("threads can be pinned on Linux only".into())
}

/// The CPUs of each node of memory, as far as the system tells.
#[cfg(target_os = "linux")]
fn nodes() -> Vec<Vec<usize>> {
    let folder = std::fs::read_dir("/sys/devices/system/node");
    let entries = folder.into_iter().flatten().flatten();
    let mut nodes: Vec<(usize, Vec<usize>)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("node")?.parse().ok()?;
            let list = std::fs::read_to_string(entry.path().join("cpulist")).ok()?;
            Some((number, cpus(&list)))
        })
        .collect();
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, cpus)| cpus).collect()
}

/// The CPUs of a CPU's core; none if the system does not tell.
#[cfg(target_os = "linux")]
fn siblings(cpu: usize) -> Vec<usize> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(file).map_or_else(|_| Vec::new(), |list| cpus(&list))
}

/// The numbers of a list such as `0-3,8,10-11`; what is none is left out.
#[cfg(any(target_os = "linux", test))]
fn cpus(list: &str) -> Vec<usize> {
    let parts = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    parts.flatten().collect()
}

/// The allowed CPUs, in the order in which threads take them: node by node, that with the most of them first (threads
/// that share a node's memory need not reach for another's); in a node one of each core first, since two of a core
/// share its arithmetic.
#[cfg(any(target_os = "linux", test))]
fn order(
    allowed: &[usize],
    nodes: &[Vec<usize>],
    siblings: impl Fn(usize) -> Vec<usize>,
) -> Vec<usize> {
    let of_node = |cpus: &Vec<usize>| -> Vec<usize> {
        allowed
            .iter()
            .copied()
            .filter(|cpu| cpus.contains(cpu))
            .collect()
    };
    let mut nodes: Vec<Vec<usize>> = nodes.iter().map(of_node).collect();
    let told: Vec<usize> = nodes.iter().flatten().copied().collect();
    nodes.push(
        allowed
            .iter()
            .copied()
            .filter(|cpu| !told.contains(cpu))
            .collect(),
    );
    nodes.sort_by_key(|cpus| std::cmp::Reverse(cpus.len()));
    let mut order = Vec::new();
    for cpus in nodes {
        // How many CPUs of the same core stand before it.
        let rank = |cpu: usize| {
            let siblings = siblings(cpu);
            cpus.iter()
                .filter(|&&other| other < cpu && siblings.contains(&other))
                .count()
        };
        let mut ranked: Vec<(usize, usize)> = cpus.iter().map(|&cpu| (rank(cpu), cpu)).collect();
        ranked.sort_unstable();
        order.extend(ranked.into_iter().map(|(_, cpu)| cpu));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(cpus("\n"), [0; 0]);
    }

    #[test]
    fn threads_fill_a_node_core_by_core_before_the_next() {
        let nodes = [vec![0, 1, 4, 5], vec![2, 3, 6, 7]];
        let siblings = |cpu: usize| vec![cpu % 4, cpu % 4 + 4];
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(order(&all, &nodes, siblings), [0, 1, 4, 5, 2, 3, 6, 7]);
        // The second node has more of those that are allowed.
        let some = [1, 2, 3, 6];
        assert_eq!(order(&some, &nodes, siblings), [2, 3, 6, 1]);
        // Nothing is told of nodes and cores.
        assert_eq!(order(&some, &[], |_| Vec::new()), some);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn each_thread_has_a_cpu_of_its_own() {
        use rustix::thread::{CpuSet, sched_getaffinity};
        let team = Team::new(std::thread::available_parallelism().unwrap().get()).unwrap();
        pin(&team).unwrap();
        let places = team.on_each(|_| {
            let own = sched_getaffinity(None).unwrap();
            let own: Vec<usize> = (0..CpuSet::MAX_CPU)
                .filter(|&cpu| own.is_set(cpu))
                .collect();
            assert_eq!(own.len(), 1, "{own:?}");
            own[0]
        });
        let mut different = places.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), places.len(), "{places:?}");
        let many = Team::new(places.len() + 1).unwrap();
        assert!(pin(&many).unwrap_err().contains("engine.threads"));
    }
}
