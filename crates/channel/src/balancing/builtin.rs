//! The policies that every channel knows.

use std::sync::Arc;

use super::least_request::LeastRequest;
use super::outlier_detection::OutlierDetection;
use super::pick_first::PickFirst;
use super::policy::{Policies, Policy};
use super::random_subsetting::RandomSubsetting;
use super::ring_hash::RingHash;
use super::round_robin::RoundRobin;
use super::weighted_round_robin::WeightedRoundRobin;

impl Policies {
    /// Returns the policies of gRPC: `pick_first`, `round_robin`, `weighted_round_robin`,
    /// `least_request_experimental`, `ring_hash_experimental`, `random_subsetting_experimental` and
    /// `outlier_detection_experimental`.
    pub fn builtin() -> Self {
        let builtin: [Arc<dyn Policy>; 7] = [
            Arc::new(PickFirst),
            Arc::new(RoundRobin),
            Arc::new(WeightedRoundRobin),
            Arc::new(LeastRequest),
            Arc::new(RingHash),
            Arc::new(RandomSubsetting),
            Arc::new(OutlierDetection),
        ];
        Self::of(builtin)
    }
}
