//! The policies that every channel knows.

use std::sync::Arc;

use super::pick_first::PickFirst;
use super::policy::{Policies, Policy};
use super::round_robin::RoundRobin;

impl Policies {
    /// Returns the policies of gRPC: `pick_first` and `round_robin`.
    pub fn builtin() -> Self {
        let builtin: [Arc<dyn Policy>; 2] = [Arc::new(PickFirst), Arc::new(RoundRobin)];
        Self::of(builtin)
    }
}
