//! Fair queueing of flows that share one resource. Pure. `queue` uses it for the callers and for the requests
//! of each caller, counted in tokens, `compute` for the models, counted in engine time.
//!
//! The algorithm is WF2Q+'s virtual clock (Bennett and Zhang, 1997) with selection by start tag. A flow that
//! begins to wait gets as its tag the clock's time, or its old tag if that is later. Service advances its tag
//! by the tokens served over its weight. The clock advances by the tokens served over the waiting flows'
//! weights, and at least to the lowest tag. So a flow that arrives later starts later, and a stream of new
//! flows can't take a waiting flow's share.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, btree_set};
use std::iter::Peekable;

/// Virtual time: tokens in fixed point, so that a token divided by many flows is not rounded to 0.
pub(super) type Tag = u64;

const FRACTION_BITS: u32 = 16;

/// The virtual time of tokens that are served to a weight.
fn span(tokens: usize, weight: u64) -> Tag {
    ((tokens as u64) << FRACTION_BITS) / weight.max(1)
}

/// The flows of one level, by their numbers. Of equal tags, the lower number goes first.
#[derive(Debug, Default)]
pub(super) struct Turns {
    clock: Tag,
    /// Waiting flows by their tags.
    waiting: BTreeSet<(Tag, u64)>,
    /// The weights of the waiting flows, summed.
    weight: u64,
    /// Waiting flows, and others that are ahead of the clock.
    flows: HashMap<u64, Flow>,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    tag: Tag,
    weight: u64,
}

impl Turns {
    /// Adds a flow to the waiting ones; one that already waits keeps its place.
    pub(super) fn join(&mut self, flow: u64) {
        self.join_with(flow, 1);
    }

    /// The same, with a share of its own.
    pub(super) fn join_with(&mut self, number: u64, weight: u32) {
        let weight = u64::from(weight.max(1));
        let flow = self.flows.entry(number);
        let flow = flow.or_insert(Flow { tag: 0, weight });
        let before = std::mem::replace(&mut flow.weight, weight);
        if self.waiting.contains(&(flow.tag, number)) {
            self.weight = self.weight + weight - before;
            return;
        }
        flow.tag = self.clock.max(flow.tag);
        self.waiting.insert((flow.tag, number));
        self.weight += weight;
    }

    /// Removes a flow that has nothing waiting any more.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(&Flow { tag, weight }) = self.flows.get(&number) else {
            return;
        };
        if self.waiting.remove(&(tag, number)) {
            self.weight -= weight;
        }
        if self.waiting.is_empty() {
            self.flows.clear();
            self.clock = 0;
        } else if tag <= self.clock {
            self.flows.remove(&number);
        } else if self.flows.len() > 64 + 2 * self.waiting.len() {
            let (clock, waiting) = (self.clock, &self.waiting);
            self.flows
                .retain(|&number, flow| flow.tag > clock || waiting.contains(&(flow.tag, number)));
        }
    }

    /// Records that a waiting flow was served `tokens` tokens.
    pub(super) fn serve(&mut self, number: u64, tokens: usize) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        self.waiting.remove(&(flow.tag, number));
        flow.tag += span(tokens, flow.weight);
        self.waiting.insert((flow.tag, number));
        self.clock += span(tokens, self.weight);
        if let Some(&(first, _)) = self.waiting.first() {
            self.clock = self.clock.max(first);
        }
    }

    /// Whether a flow waits, or is ahead of the clock.
    pub(super) fn knows(&self, flow: u64) -> bool {
        self.flows.contains_key(&flow)
    }

    /// The flow whose turn it is.
    pub(super) fn first(&self) -> Option<u64> {
        self.waiting.first().map(|&(_, flow)| flow)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The flows' waiting items in the order in which they would be served if nothing else arrived. `open`
    /// returns a flow's items with their tokens, in the flow's order.
    pub(super) fn merged<I, F>(&self, open: F) -> Merged<'_, I, F> {
        Merged {
            flows: &self.flows,
            unopened: self.waiting.iter().peekable(),
            opened: BinaryHeap::new(),
            open,
        }
    }
}

/// See [`Turns::merged`]. Opens a flow only at its first turn, so that reading the front does not cost a pass
/// over all flows.
#[derive(Debug)]
pub(super) struct Merged<'a, I, F> {
    flows: &'a HashMap<u64, Flow>,
    unopened: Peekable<btree_set::Iter<'a, (Tag, u64)>>,
    opened: BinaryHeap<Reverse<Opened<I>>>,
    open: F,
}

#[derive(Debug)]
struct Opened<I> {
    tag: Tag,
    flow: u64,
    weight: u64,
    items: I,
}

impl<I> Opened<I> {
    fn place(&self) -> (Tag, u64) {
        (self.tag, self.flow)
    }
}

impl<I> PartialEq for Opened<I> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl<I> Eq for Opened<I> {}

impl<I> PartialOrd for Opened<I> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<I> Ord for Opened<I> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl<T, I, F> Iterator for Merged<'_, I, F>
where
    I: Iterator<Item = (T, usize)>,
    F: FnMut(u64) -> I,
{
    type Item = (T, usize);

    fn next(&mut self) -> Option<(T, usize)> {
        loop {
            let opened = self.opened.peek().map(|first| first.0.place());
            let is_next = |place: &&(Tag, u64)| opened.is_none_or(|first| **place < first);
            if let Some(&(tag, flow)) = self.unopened.next_if(is_next) {
                let weight = self.flows.get(&flow).map_or(1, |flow| flow.weight);
                let items = (self.open)(flow);
                self.opened.push(Reverse(Opened {
                    tag,
                    flow,
                    weight,
                    items,
                }));
                continue;
            }
            let Reverse(mut first) = self.opened.pop()?;
            if let Some((item, tokens)) = first.items.next() {
                first.tag += span(tokens, first.weight);
                self.opened.push(Reverse(first));
                return Some((item, tokens));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(turns: &Turns, tokens: usize, each: usize) -> Vec<u64> {
        let open = |flow| std::iter::repeat_n((flow, tokens), each);
        turns.merged(open).map(|(flow, _)| flow).collect()
    }

    #[test]
    fn flows_take_turns() {
        let mut turns = Turns::default();
        for flow in [1, 2, 3] {
            turns.join(flow);
        }
        assert_eq!(order(&turns, 10, 2), [1, 2, 3, 1, 2, 3]);
        turns.serve(1, 10);
        assert_eq!(order(&turns, 10, 2), [2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn a_flow_of_twice_the_weight_has_twice_the_turns() {
        let mut turns = Turns::default();
        turns.join_with(1, 2);
        turns.join(2);
        let mut served = [0; 2];
        for _ in 0..30 {
            let first = turns.first().unwrap();
            served[first as usize - 1] += 1;
            turns.serve(first, 10);
        }
        assert_eq!(served, [20, 10]);
        let ahead = order(&turns, 10, 20);
        assert_eq!(ahead[..15].iter().filter(|&&flow| flow == 1).count(), 10);
        // What a flow may have changes while it waits.
        turns.join_with(1, 1);
        assert_eq!(turns.weight, 2);
    }

    #[test]
    fn a_newcomer_starts_at_the_clock_and_not_before_it() {
        let mut turns = Turns::default();
        turns.join(1);
        turns.join(2);
        for _ in 0..5 {
            turns.serve(1, 10);
            turns.serve(2, 10);
        }
        turns.join(3);
        // It gets the next turn at the latest, but no service for the time before it came.
        assert_eq!(order(&turns, 10, 3)[..3], [1, 2, 3]);
    }

    #[test]
    fn who_was_served_out_of_turn_waits_for_the_others_to_catch_up() {
        let mut turns = Turns::default();
        turns.join(1);
        turns.join(2);
        turns.serve(2, 40);
        turns.leave(2);
        turns.join(2);
        assert_eq!(order(&turns, 10, 6)[..5], [1, 1, 1, 1, 1]);
    }

    #[test]
    fn flows_that_left_leave_nothing_behind() {
        let mut turns = Turns::default();
        turns.join(0);
        for flow in 1..10_000 {
            turns.join(flow);
            turns.serve(flow, 10);
            turns.leave(flow);
            turns.serve(0, 10);
        }
        assert!(turns.flows.len() < 200, "{}", turns.flows.len());
        turns.leave(0);
        assert!(turns.flows.is_empty() && turns.is_empty());
        assert_eq!(turns.weight, 0);
    }
}
