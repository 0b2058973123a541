use super::*;
use crate::types::Terms;
use proptest::prelude::*;

const LIMITS: BatchLimits = BatchLimits {
    max_tokens: 100,
    max_pairs: 64,
    window_tokens: 100,
};

type Reply = oneshot::Receiver<Result<JobOutputs, RunError>>;

fn job(caller: &Caller, request: u64, lengths: &[usize]) -> (Job, Reply) {
    let (reply, receiver) = oneshot::channel();
    let sequence = |&n: &usize| Sequence::new(vec![n as u32; n], vec![0; n]);
    let now = Instant::now();
    let job = Job {
        name: "test".into(),
        standing: Terms::from(caller).standing(None),
        request,
        sequences: lengths.iter().map(sequence).collect(),
        submitted: now,
        deadline: now + Duration::from_secs(60),
        reply,
    };
    (job, receiver)
}

/// A job of a request of its own on a connection of its own.
fn alone(number: u64, lengths: &[usize]) -> (Job, Reply) {
    job(&Caller::Connection(number), number, lengths)
}

/// Runs one batch, each sequence's output its length; returns its sequences and tokens.
fn step(queue: &mut Queue) -> (usize, usize) {
    let mut plans = Priority::ALL.into_iter();
    let Some(planned) = plans.find_map(|priority| queue.plan(priority, &LIMITS)) else {
        return (0, 0);
    };
    let now = Instant::now();
    queue.take(&planned.places, now);
    for (&place, length) in planned.places.iter().zip(planned.batch.lengths()) {
        queue.scored(place, Output::logits(&[length as f32]), now);
    }
    (planned.places.len(), planned.batch.tokens())
}

fn run_out(queue: &mut Queue) {
    while step(queue).0 > 0 {}
    assert_eq!((queue.depth(), queue.requests()), ((0, 0), (0, 0)));
    assert!(queue.jobs.is_empty());
    assert_eq!(queue.classes.each_ref().map(Class::is_empty), [true; 2]);
}

#[test]
fn requests_wait_until_one_of_their_sequences_is_taken() {
    let mut queue = Queue::default();
    let (first, _first) = alone(0, &[10; 20]);
    let (second, second_reply) = alone(1, &[10]);
    let (more, _more) = alone(0, &[10]);
    for job in [first, second, more] {
        queue.push(job);
    }
    assert_eq!(queue.requests(), (2, 0));
    step(&mut queue);
    assert_eq!(queue.requests(), (0, 1), "the second is done");
    let (third, third_reply) = alone(2, &[10]);
    queue.push(third);
    assert_eq!(queue.requests(), (1, 1));
    drop((second_reply, third_reply));
    queue.drop_dead(Instant::now(), 1e9);
    assert_eq!(queue.requests(), (0, 1));
    run_out(&mut queue);
}

#[test]
fn a_small_request_does_not_wait_for_a_large_one_whoever_sent_both() {
    for small_caller in [0, 1] {
        let mut queue = Queue::default();
        let (large, mut large_reply) = job(&Caller::Connection(0), 0, &[10; 1000]);
        queue.push(large);
        for _ in 0..5 {
            step(&mut queue);
        }
        let (small, mut small_reply) = job(&Caller::Connection(small_caller), 1, &[10; 5]);
        queue.push(small);
        step(&mut queue);
        step(&mut queue);
        let scored = small_reply.try_recv().expect("two batches are enough");
        assert_eq!(scored.unwrap().outputs, vec![Output::logits(&[10.0]); 5]);
        assert!(large_reply.try_recv().is_err());
        run_out(&mut queue);
        assert_eq!(large_reply.try_recv().unwrap().unwrap().outputs.len(), 1000);
    }
}

#[test]
fn logits_come_back_in_the_jobs_own_order() {
    let mut queue = Queue::default();
    let lengths = [70, 3, 40, 90, 12, 12, 55];
    let (first, mut reply) = alone(0, &lengths);
    queue.push(first);
    let (second, _other) = alone(1, &[33; 9]);
    queue.push(second);
    run_out(&mut queue);
    let outputs = reply.try_recv().unwrap().unwrap().outputs;
    let expected: Vec<Output> = lengths
        .iter()
        .map(|&n| Output::logits(&[n as f32]))
        .collect();
    assert_eq!(outputs, expected);
}

#[test]
fn a_request_whose_client_has_gone_costs_no_further_compute() {
    let mut queue = Queue::default();
    let (gone, reply) = alone(0, &[10; 50]);
    queue.push(gone);
    step(&mut queue);
    drop(reply);
    queue.drop_dead(Instant::now(), 1e9);
    assert_eq!(queue.depth(), (0, 0));
    assert_eq!(step(&mut queue), (0, 0));
    assert!(queue.classes[0].is_empty());
}

#[test]
fn a_request_past_its_deadline_is_told_so() {
    let mut queue = Queue::default();
    let (late, mut reply) = alone(0, &[10]);
    let deadline = late.deadline;
    queue.push(late);
    queue.drop_dead(deadline, 1e9);
    assert!(matches!(
        reply.try_recv(),
        Ok(Err(RunError::DeadlineExceeded))
    ));
}

#[test]
fn what_will_be_late_is_dropped_before_it_costs_engine_time() {
    let mut queue = Queue::default();
    let (late, mut reply) = alone(0, &[10; 8]);
    let deadline = late.deadline;
    queue.push(late);
    let now = deadline - Duration::from_secs(2);
    // 80 tokens in 2 s; the rate is measured, so only twice as many are too many.
    queue.drop_dead(now, 21.0);
    assert_eq!(queue.depth(), (8, 80));
    // What is being scored does not count.
    let planned = queue.plan(Priority::Interactive, &LIMITS).unwrap();
    queue.take(&planned.places[..4], now);
    queue.drop_dead(now, 11.0);
    assert_eq!(queue.depth(), (4, 40));
    queue.drop_dead(now, 9.0);
    assert_eq!(queue.depth(), (0, 0));
    assert!(matches!(
        reply.try_recv(),
        Ok(Err(RunError::DeadlineExceeded))
    ));
}

#[test]
fn a_batch_holds_one_class_and_callers_share_it_by_weight() {
    let mut queue = Queue::default();
    let mut replies = Vec::new();
    for (caller, weight, priority) in [
        (0, 1, Priority::Batch),
        (1, 1, Priority::Interactive),
        (2, 3, Priority::Interactive),
    ] {
        let (mut job, reply) = alone(caller, &[10; 40]);
        job.standing.weight = weight;
        job.standing.priority = priority;
        queue.push(job);
        replies.push(reply);
    }
    let mut scored = [0; 3];
    for _ in 0..4 {
        let planned = queue.plan(Priority::Interactive, &LIMITS).unwrap();
        for place in &planned.places {
            scored[place.job as usize] += 1;
        }
        queue.take(&planned.places, Instant::now());
    }
    assert_eq!(scored, [0, 10, 30]);
    let planned = queue.plan(Priority::Batch, &LIMITS).unwrap();
    assert!(planned.places.iter().all(|place| place.job == 0));
}

#[test]
fn a_plan_whose_client_has_gone_is_seen_to_be_stale() {
    let mut queue = Queue::default();
    let (first, reply) = alone(0, &[10; 3]);
    queue.push(first);
    let planned = queue.plan(Priority::Interactive, &LIMITS).unwrap();
    assert!(planned.places.iter().all(|&place| queue.holds(place)));
    drop(reply);
    queue.drop_dead(Instant::now(), 1e9);
    assert!(!planned.places.iter().any(|&place| queue.holds(place)));
}

/// Clients that each send one sequence, and the next as soon as that is answered, beside a request of some
/// sequences: how many tokens were served until that one was done.
fn served_beside_a_flood(clients: u64, sequences: usize, caller: impl Fn(u64) -> Caller) -> usize {
    let mut queue = Queue::default();
    let mut sent = 0;
    let mut send = |queue: &mut Queue| {
        sent += 1;
        let (flood, reply) = job(&caller(sent), sent, &[10]);
        queue.push(flood);
        reply
    };
    let mut replies: Vec<Reply> = (0..clients).map(|_| send(&mut queue)).collect();
    let (victim, mut victim_reply) = job(&Caller::Key("victim".into()), 0, &vec![10; sequences]);
    queue.push(victim);
    let mut served = 0;
    while victim_reply.try_recv().is_err() {
        served += step(&mut queue).1;
        for reply in &mut replies {
            if reply.try_recv().is_ok() {
                *reply = send(&mut queue);
            }
        }
        assert!(served < 100_000, "the request starves");
    }
    served
}

#[test]
fn a_flood_of_small_requests_leaves_a_larger_one_its_equal_share() {
    // Of 129 who wait, each gets a 129th: 5 sequences are done when each has had 5.
    let equal_share = 129 * 5 * 10;
    for caller in [
        |sent| Caller::Connection(sent % 128),
        // A connection for each request: callers that nobody has seen before.
        Caller::Connection,
    ] {
        let served = served_beside_a_flood(128, 5, caller);
        assert!(served < 2 * equal_share, "{served} tokens");
    }
}

#[test]
fn a_flood_under_one_key_leaves_another_key_half_of_the_engine() {
    let served = served_beside_a_flood(300, 50, |_| Caller::Key("flood".into()));
    assert!(served < 2 * 2 * 50 * 10, "{served} tokens");
}

#[test]
fn a_flood_under_ones_own_key_leaves_a_request_its_share_too() {
    let served = served_beside_a_flood(128, 5, |_| Caller::Key("victim".into()));
    assert!(served < 2 * 129 * 5 * 10, "{served} tokens");
}

/// What an adversary does between two batches.
#[derive(Debug, Clone)]
enum Arrival {
    /// A request of a caller that is known, or of the next new one.
    Request {
        caller: Option<u8>,
        lengths: Vec<usize>,
    },
    /// More of the request that came last.
    More { lengths: Vec<usize> },
    /// The client of a request goes.
    Gone { request: usize },
}

fn arrival() -> impl proptest::strategy::Strategy<Value = Arrival> {
    let lengths = || prop::collection::vec(1usize..60, 1..30);
    prop_oneof![
        4 => (prop::option::of(0u8..4), lengths())
            .prop_map(|(caller, lengths)| Arrival::Request { caller, lengths }),
        4 => prop::collection::vec(1usize..20, 1..3)
            .prop_map(|lengths| Arrival::Request { caller: None, lengths }),
        1 => lengths().prop_map(|lengths| Arrival::More { lengths }),
        1 => (0usize..20).prop_map(|request| Arrival::Gone { request }),
    ]
}

/// A job in the simulation.
struct Sent {
    reply: Option<Reply>,
    caller: Caller,
    /// Tokens that its request has waiting, its own the last.
    tokens: usize,
    /// Tokens served when it came, and tokens that waited then.
    served: usize,
    ahead: usize,
    /// Most callers, and most requests of its own caller, that waited at once while it did.
    callers: usize,
    siblings: usize,
}

proptest! {
    /// In virtual time (tokens served), whatever arrives: a job waits at most for the work that was
    /// there when it came and twice its equal share among those that wait beside it.
    #[test]
    fn a_wait_is_bounded_by_what_was_ahead_and_a_fair_share(
        rounds in prop::collection::vec(prop::collection::vec(arrival(), 0..6), 1..80),
    ) {
        let mut queue = Queue::default();
        let mut sent: Vec<Sent> = Vec::new();
        let (mut served, mut fresh, mut request) = (0, 1000, 0);
        let mut last = (Caller::local(), 0);
        let mut rounds = rounds.into_iter();
        loop {
            let round = rounds.next();
            let over = round.is_none();
            for arrival in round.into_iter().flatten() {
                let (caller, number, lengths) = match arrival {
                    Arrival::Request { caller, lengths } => {
                        fresh += 1;
                        request += 1;
                        let number = caller.map_or(fresh, u64::from);
                        (Caller::Connection(number), request, lengths)
                    }
                    Arrival::More { lengths } => (last.0.clone(), last.1, lengths),
                    Arrival::Gone { request } => {
                        if let Some(sent) = sent.get_mut(request) {
                            sent.reply = None;
                        }
                        queue.drop_dead(Instant::now(), 1e9);
                        continue;
                    }
                };
                last = (caller.clone(), number);
                let (job, reply) = job(&caller, number, &lengths);
                let ahead = queue.depth().1;
                queue.push(job);
                let class = &queue.classes[0];
                let line = &class.lines[&class.callers[&caller]];
                let tokens = line.requests[&number].values().sum();
                sent.push(Sent { reply: Some(reply), caller, tokens, served, ahead, callers: 0, siblings: 0 });
            }
            let class = &queue.classes[0];
            let callers = class.lines.len();
            for sent in sent.iter_mut().filter(|s| s.reply.is_some()) {
                sent.callers = sent.callers.max(callers);
                let line = class.callers.get(&sent.caller).and_then(|n| class.lines.get(n));
                sent.siblings = sent.siblings.max(line.map_or(0, |line| line.requests.len()));
            }
            let (sequences, tokens) = step(&mut queue);
            served += tokens;
            for sent in &mut sent {
                let Some(reply) = &mut sent.reply else { continue };
                let Ok(answer) = reply.try_recv() else { continue };
                prop_assert!(answer.is_ok());
                sent.reply = None;
                let share = sent.callers * sent.siblings * sent.tokens;
                // A batch holds more than the sequence whose turn it is, so each may be ahead of its turn by
                // a batch and a sequence.
                let ahead_of_turn = LIMITS.max_tokens + 60;
                let turns = (sent.callers * sent.siblings + 1) * ahead_of_turn;
                let wait = served - sent.served;
                prop_assert!(
                    wait <= sent.ahead + 2 * share + turns,
                    "{wait} > {} + 2 x {share} + {turns}", sent.ahead
                );
            }
            if over && sequences == 0 {
                break;
            }
        }
        prop_assert!(sent.iter().all(|s| s.reply.is_none()));
        prop_assert!(queue.jobs.is_empty() && queue.classes[0].is_empty());
    }
}
