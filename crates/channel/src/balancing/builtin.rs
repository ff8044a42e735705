//! The policies that every channel knows.

use std::sync::Arc;

use super::pick_first::PickFirst;
use super::policy::{Policies, Policy};
use super::ring_hash::RingHash;
use super::round_robin::RoundRobin;
use super::weighted_round_robin::WeightedRoundRobin;

impl Policies {
    /// Returns the policies of gRPC: `pick_first`, `round_robin`, `weighted_round_robin` and `ring_hash_experimental`.
    pub fn builtin() -> Self {
        let builtin: [Arc<dyn Policy>; 4] = [
            Arc::new(PickFirst),
            Arc::new(RoundRobin),
            Arc::new(WeightedRoundRobin),
            Arc::new(RingHash),
        ];
        Self::of(builtin)
    }
}
