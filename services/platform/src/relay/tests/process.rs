//! One process: its relay's machine, and its producer.

use std::collections::VecDeque;

use minishop_bus::produce::Token;
use minishop_core::ids::EventId;

use super::super::machine::Machine;
use super::super::shard::{Moment, Sabotage};

#[derive(Debug)]
pub struct Process {
    pub machine: Machine,
    /// The number of this start: messages for an earlier one are lost.
    pub start: u64,
    /// The producer's number in it.
    pub session: u64,
    /// Records in the producer, by partition.
    pub queues: Vec<VecDeque<(Token, EventId)>>,
    /// Records in it that are sent alone.
    pub single: Vec<VecDeque<(Token, EventId)>>,
    /// Cut from the store without having noticed.
    pub relay_is_cut: bool,
    pub writer_is_cut: bool,
    /// Until then, it does nothing.
    pub stopped_until: Moment,
    /// When it steps next.
    pub step_at: Moment,
}

impl Process {
    pub fn new(start: u64, shards: usize, sabotage: Option<Sabotage>) -> Self {
        let mut machine = Machine::default();
        machine.sabotage = sabotage;
        Self {
            machine,
            start,
            session: 0,
            queues: vec![VecDeque::new(); shards],
            single: vec![VecDeque::new(); shards],
            relay_is_cut: false,
            writer_is_cut: false,
            stopped_until: Moment::ZERO,
            step_at: Moment::ZERO,
        }
    }

    pub fn held(&self) -> usize {
        self.queues.iter().chain(&self.single).map(VecDeque::len).sum()
    }
}
