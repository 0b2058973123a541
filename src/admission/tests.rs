use super::*;
use crate::types::Terms;

const TIMEOUT: Duration = Duration::from_secs(30);
const RATE: f64 = 100.0;

/// 100 tokens a second, one second of them.
fn gate() -> Admission {
    Admission::new(Options {
        max_queue_tokens: usize::MAX,
        max_queue: Duration::from_secs(1),
    })
}

fn demand(tokens: usize, bytes: usize) -> Demand {
    Demand {
        tokens,
        work: work(tokens as f64, RATE),
        bytes,
    }
}

/// Tokens in the system that count.
fn tokens(gate: &Admission) -> usize {
    (gate.held().as_secs_f64() * RATE).round() as usize
}

fn admit(gate: &Admission, caller: u64, tokens: usize) -> Result<Permit, Refused> {
    gate.admit(
        &standing(caller),
        demand(tokens, 4 * tokens),
        TIMEOUT,
        false,
    )
}

fn standing(caller: u64) -> Standing {
    Terms::from(&Caller::Connection(caller)).standing(None)
}

fn batch(caller: u64) -> Standing {
    Standing {
        priority: Priority::Batch,
        ..standing(caller)
    }
}

fn retry_after(refused: Result<Permit, Refused>) -> f64 {
    match refused.unwrap_err() {
        Refused::Overloaded { retry_after } => retry_after.as_secs_f64(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_request_is_admitted_whole_or_refused_whole() {
    let gate = gate();
    let mut held: Vec<Permit> = (0..4).map(|_| admit(&gate, 1, 24).unwrap()).collect();
    assert_eq!(retry_after(admit(&gate, 1, 24)), 0.085);
    assert_eq!(tokens(&gate), 96, "a refused request leaves nothing behind");
    drop(held.pop());
    assert!(admit(&gate, 1, 24).is_ok());
}

#[test]
fn what_costs_nothing_is_let_in_to_a_full_system() {
    let gate = gate();
    let _held: Vec<Permit> = (0..4).map(|_| admit(&gate, 1, 24).unwrap()).collect();
    assert!(admit(&gate, 1, 1).is_err());
    assert!(admit(&gate, 1, 0).is_ok());
}

#[test]
fn settling_and_dropping_give_back_what_was_taken() {
    let gate = gate();
    let mut permit = admit(&gate, 1, 10).unwrap();
    permit.settle(work(22.0, RATE));
    assert_eq!(tokens(&gate), 22);
    permit.settle(work(3.0, RATE));
    assert_eq!(tokens(&gate), 3);
    drop(permit);
    assert_eq!(tokens(&gate), 0);
    let state = lock(&gate.state);
    assert!(state.classes[0].callers.is_empty() && state.requests.is_empty());
}

#[test]
fn a_large_request_leaves_room_for_small_ones() {
    let gate = gate();
    // 20 seconds of work, but it is in the queue a quarter of a second at a time.
    let mut large = admit(&gate, 1, 2000).unwrap();
    assert_eq!(tokens(&gate), 25);
    let small: Vec<Permit> = (0..7).map(|_| admit(&gate, 1, 10).unwrap()).collect();
    assert!(admit(&gate, 1, 10).is_err());
    drop(small);
    let second = admit(&gate, 1, 500).unwrap();
    // A third large one would leave the small ones less than half.
    assert_eq!(retry_after(admit(&gate, 1, 100)), 25.0);
    assert!(admit(&gate, 1, 25).is_ok());
    drop(second);
    large.settle(work(5.0, RATE));
    assert_eq!(tokens(&gate), 5, "what is left of it counts in the end");
}

#[test]
fn large_requests_of_any_callers_leave_room_for_small_ones() {
    let gate = gate();
    // Each of these callers has 3 s of work, of which a quarter of a second counts.
    let _large: Vec<Permit> = (0..3).map(|i| admit(&gate, i, 300).unwrap()).collect();
    assert_eq!(tokens(&gate), 75);
    let refused = admit(&gate, 3, 300).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the server is busy: it has work for about 9.0 s before there is room; try again in 9 s"
    );
    // A small one gives back soon what it holds.
    let small = admit(&gate, 4, 15).unwrap();
    assert_eq!(retry_after(admit(&gate, 0, 10)), 0.025);
    drop(small);
    assert!(admit(&gate, 0, 10).is_ok());
}

#[test]
fn one_waits_for_large_requests_to_end_where_small_ones_make_no_room() {
    let gate = gate();
    let batch = |tokens| {
        let demand = demand(tokens, 4 * tokens);
        gate.admit(&batch(1), demand, TIMEOUT, false)
    };
    let large = [batch(300).unwrap(), batch(300).unwrap()];
    let _small = batch(10).unwrap();
    // Interactive requests take 0.6 s of the limit, so that the large ones alone are more than the rest.
    let interactive: Vec<Permit> = (0..6).map(|_| admit(&gate, 2, 10).unwrap()).collect();
    assert_eq!(retry_after(batch(10)), 6.7);
    drop(large);
    assert!(interactive.len() == 6 && batch(10).is_ok());
}

#[test]
fn what_can_not_be_answered_in_time_is_refused_at_once() {
    let gate = gate();
    assert!(matches!(
        admit(&gate, 1, 4000),
        Err(Refused::TooLarge { tokens: 4000, .. })
    ));
    let _large = admit(&gate, 1, 2000).unwrap();
    // 20 s are ahead of it.
    assert_eq!(retry_after(admit(&gate, 2, 1100)), 20.0);
    assert_eq!(
        retry_after(admit(&gate, 2, 800)),
        20.0,
        "an eighth is not planned for"
    );
    assert!(admit(&gate, 2, 600).is_ok());
}

#[test]
fn a_caller_is_let_in_to_an_equal_share_though_another_fills_the_limit() {
    let gate = gate();
    let all =
        |caller| std::iter::from_fn(|| admit(&gate, caller, 10).ok()).collect::<Vec<Permit>>();
    let mut flood = all(1);
    assert_eq!(flood.len(), 9, "an eighth is not for it");
    let mut other: Vec<Permit> = Vec::new();
    while flood.len() > 5 {
        // Of what is free, it takes what it may, before the one who holds more.
        other.extend(all(2));
        assert!(admit(&gate, 1, 10).is_err());
        assert_eq!(tokens(&gate), 100);
        flood.pop();
    }
    other.extend(all(2));
    assert_eq!(other.len(), 5, "no more than half");
    // However large the newcomer's request is.
    flood.pop();
    assert!(admit(&gate, 3, 25).is_ok());
}

#[test]
fn a_body_is_refused_unread_only_if_it_can_not_fit() {
    let gate = gate();
    let check = |bytes| gate.check(&standing(1), bytes, Duration::MAX);
    // Of late, 1,000 bytes were a token.
    let admit = |caller, tokens, bytes| {
        let demand = demand(tokens, bytes);
        gate.admit(&standing(caller), demand, TIMEOUT, false)
    };
    assert!(check(usize::MAX).is_ok(), "an empty system takes anything");
    let mut held: Vec<Permit> = (0..8).map(|_| admit(1, 10, 10_000).unwrap()).collect();
    assert!(check(10_000).is_ok());
    held.push(admit(2, 10, 10_000).unwrap());
    // What is left is for those who hold less than an equal share.
    let other = |bytes| gate.check(&standing(3), bytes, Duration::MAX);
    assert!(check(10_000).is_err());
    assert!(other(25_000).is_ok());
    // One request whose documents were cut to little shows that bytes need not be tokens.
    drop(held);
    let _large = [(); 2].map(|()| admit(1, 100, 100_000).unwrap());
    assert!(check(100_000).is_err(), "a third large one");
    let permit = admit(1, 1, 100_000);
    assert!(permit.is_ok() && check(100_000).is_ok());
}

#[test]
fn small_bodies_say_nothing_of_what_larger_ones_take() {
    let gate = gate();
    let _held: Vec<Permit> = (0..8).map(|_| admit(&gate, 1, 10).unwrap()).collect();
    // Each had 40 bytes for 10 tokens; 40,000 would be more than can be answered in time.
    assert!(gate.check(&standing(2), 40_000, TIMEOUT).is_ok());
}

#[test]
fn the_limit_follows_the_engines_rate_up_to_the_tokens_allowed() {
    let gate = Admission::new(Options {
        max_queue_tokens: 500,
        max_queue: Duration::from_secs(2),
    });
    let limit = |rate| gate.bounds(work(1.0, rate)).limit.as_secs_f64();
    assert_eq!(limit(10.0), 2.0);
    assert_eq!(limit(1e6), 0.0005);
    assert_eq!(limit(0.0), 1000.0, "one token at least");
}

#[test]
fn a_large_request_is_late_if_those_before_it_leave_no_time() {
    let gate = gate();
    let mut first = admit(&gate, 1, 1000).unwrap();
    let mut second = admit(&gate, 2, 1000).unwrap();
    // Both have more tokens than their bytes told.
    let (real, until) = (work(2000.0, RATE), Duration::from_secs(30));
    first.settle(real);
    second.settle(real);
    assert_eq!(first.late(real, until), None);
    assert_eq!(second.late(real, until), Some(real));
    // What small requests have left is no matter, since they are done first.
    assert_eq!(second.late(work(20.0, RATE), until), None);
    drop(first);
    assert_eq!(second.late(real, until), None);
    let too_much = work(3500.0, RATE);
    assert_eq!(second.late(too_much, until), Some(Duration::ZERO));
}

#[test]
fn large_requests_are_admitted_as_long_as_all_can_be_answered_in_time() {
    let gate = gate();
    let held: Vec<Permit> = (0..4).map_while(|i| admit(&gate, i, 1000).ok()).collect();
    // 10 s each; a part of the 30 s is not planned for, since estimates are rough.
    assert_eq!(held.len(), 2);
}

#[test]
fn batch_work_is_refused_first_but_keeps_a_sixteenth() {
    let gate = gate();
    let batch = |caller, tokens| {
        let demand = demand(tokens, 4 * tokens);
        gate.admit(&batch(caller), demand, TIMEOUT, false)
    };
    let _first: Vec<Permit> = (0..5).map(|_| batch(1, 20).unwrap()).collect();
    assert!(batch(1, 20).is_err(), "it has filled the limit");
    let mut held: Vec<Permit> = (0..5).map(|_| admit(&gate, 2, 20).unwrap()).collect();
    assert!(
        admit(&gate, 2, 20).is_err(),
        "and so have interactive requests"
    );
    assert!(batch(3, 20).is_err(), "no share of what is left");
    drop(_first);
    // Of one second a sixteenth is about 6 tokens; the first is let in whatever it takes.
    let first = batch(1, 20).unwrap();
    assert!(batch(1, 1).is_err());
    drop(first);
    let small: Vec<Permit> = (0..7).map_while(|_| batch(1, 1).ok()).collect();
    assert_eq!(small.len(), 6);
    assert!(batch(1, 1).is_err());
    held.clear();
    assert!(batch(1, 20).is_ok());
}

#[test]
fn interactive_requests_do_not_see_batch_work() {
    let gate = gate();
    let large = gate.admit(&batch(1), demand(2000, 8000), TIMEOUT, false);
    let second = Duration::from_secs(1);
    let admit = |standing: &Standing| gate.admit(standing, demand(50, 200), second, true);
    assert!(admit(&standing(2)).is_ok());
    assert!(matches!(admit(&batch(2)), Err(Refused::Overloaded { .. })));
    drop(large);
    assert!(admit(&batch(2)).is_ok());
}

#[test]
fn who_waits_shorter_than_the_queue_is_refused_at_once() {
    let gate = gate();
    let short = |caller, tokens, ms| {
        let time = Duration::from_millis(ms);
        gate.admit(&standing(caller), demand(tokens, 1000 * tokens), time, true)
    };
    // 0.2 s of work in 0.1 s, by an idle server.
    let refused = short(1, 20, 100).unwrap_err();
    assert!(matches!(refused, Refused::NoTime { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("200 ms, but its client waits for 100 ms")
    );
    let _held: Vec<Permit> = (0..4).map(|_| admit(&gate, 1, 20).unwrap()).collect();
    // 0.8 s of another caller wait: a small request has done its turns before, a larger one has not.
    assert!(short(2, 10, 300).is_ok());
    assert!(retry_after(short(2, 20, 300)) > 0.0);
    // Of the same caller's requests each has as much of its share.
    assert!(short(1, 5, 300).is_ok());
    assert!(retry_after(short(1, 10, 300)) > 0.0);
    // Twice the weight, half of the others' turns.
    let heavy = Standing {
        weight: 2,
        ..standing(2)
    };
    let time = Duration::from_millis(400);
    let admit = |standing: &Standing| gate.admit(standing, demand(20, 20_000), time, true);
    assert!(admit(&heavy).is_ok());
    assert!(admit(&standing(2)).is_err());
    let check = |ms| gate.check(&standing(2), 20_000, Duration::from_millis(ms));
    assert!(check(300).is_err() && check(600).is_ok());
}
