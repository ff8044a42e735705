//! Load reports of servers (gRFC A51): `xds.data.orca.v3.OrcaLoadReport`.

use std::collections::BTreeMap;

/// A server's report of its load (ORCA, gRFC A51).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The share of the CPU that is in use, 0 to 1; above 1 if the server uses more than it was assigned.
    pub cpu_utilization: f64,
    /// The share of the memory that is in use, 0 to 1.
    pub mem_utilization: f64,
    /// A measure of use that the application has defined; 0 if it has none.
    pub application_utilization: f64,
    /// Queries per second.
    pub rps_fractional: f64,
    /// Errors per second.
    pub eps: f64,
    /// Costs of the request, by name.
    pub request_cost: BTreeMap<String, f64>,
    /// Shares of further resources, 0 to 1, by name.
    pub utilization: BTreeMap<String, f64>,
    /// Further measures, by name.
    pub named_metrics: BTreeMap<String, f64>,
}
