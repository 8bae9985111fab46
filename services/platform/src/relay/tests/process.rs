//! One process: its relay's machine, and its producer.

use std::collections::VecDeque;

use minishop_core::ids::EventId;

use super::super::machine::Machine;
use super::super::shard::{Moment, Sabotage, Token};

#[derive(Debug)]
pub struct Process {
    pub machine: Machine,
    /// Which start of it this is: what was meant for an earlier one is lost.
    pub start: u64,
    /// Which producer of this start.
    pub session: u64,
    /// What the producer holds, by partition.
    pub queues: Vec<VecDeque<(Token, EventId)>>,
    /// What it holds to be sent alone.
    pub single: Vec<VecDeque<(Token, EventId)>>,
    /// The sessions with the store are cut, and it has not noticed.
    pub relay_is_cut: bool,
    pub writer_is_cut: bool,
    /// It does nothing until then.
    pub stopped_until: Moment,
    /// When it is to look around again.
    pub step_at: Moment,
}

impl Process {
    pub fn new(start: u64, shards: usize, sabotage: Option<Sabotage>) -> Self {
        let mut machine = Machine::new();
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
