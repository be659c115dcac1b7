//! Who peers with whom inside the cluster: what is asked for, and how far the nodes are with it.
//!
//! The controller decides, nodes only follow ([`Sessions`]). What a decision does away with is kept as [`Retiring`] until every node says
//! that it can do without, so that no route is lost in between.

use crate::definitions::schemas;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nodes up to which `Auto` turns into a mesh if it was none.
pub const MESH_BELOW: usize = 80;
/// Nodes up to which `Auto` stays a mesh if it was one.
pub const MESH_UP_TO: usize = 110;
/// Reflectors that an operator may ask for.
pub const REFLECTORS: std::ops::RangeInclusive<u8> = 1..=16;

/// Who peers with whom inside the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Topology {
    /// A mesh in a small cluster, reflectors in a large one.
    #[default]
    Auto,
    /// iBGP between all nodes.
    Mesh,
    /// iBGP between all nodes and a few that reflect (RFC 4456).
    RouteReflector,
    /// Only what BGPPeer objects say: nodes peer with their ToR.
    Fabric,
}

/// Which nodes reflect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteReflectors {
    /// How many nodes reflect, 1 to 16. Left out, 3 up to 500 nodes, 4 up to 2000, 5 above. With one, its restarts are graceful, and its
    /// loss is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub count: Option<u8>,
    /// Selects, by label, the nodes that may reflect. Left out or empty, all may, and those of the control plane do where there are no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::selector")]
    pub node_selector: Option<LabelSelector>,
}

/// Who peers with whom now. Every node speaks with the nodes that reflect, and those with every node; in a mesh all with all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// Number of the decision; each has the next one.
    pub step: u32,
    /// What is in force: `Mesh`, `RouteReflector` or `Fabric`.
    pub topology: Topology,
    /// Names of the nodes that reflect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route_reflectors: Vec<String>,
    /// What is still there beside that, until every node has its routes without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<Retiring>,
}

/// Sessions of a decision before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retiring {
    /// Whether all nodes speak with all.
    #[serde(default)]
    pub mesh: bool,
    /// Names of nodes that reflect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route_reflectors: Vec<String>,
}

impl Sessions {
    /// Whether all nodes speak with all, for good or until they can do without.
    #[must_use]
    pub fn is_meshed(&self) -> bool {
        self.topology == Topology::Mesh || self.retiring.as_ref().is_some_and(|retiring| retiring.mesh)
    }

    /// The nodes that reflect and are to go on.
    #[must_use]
    pub fn stays(&self, node: &str) -> bool {
        self.route_reflectors.iter().any(|name| name == node)
    }

    /// All nodes that reflect.
    pub fn reflectors(&self) -> impl Iterator<Item = &str> {
        let retiring = self.retiring.iter().flat_map(|retiring| &retiring.route_reflectors);
        self.route_reflectors.iter().chain(retiring).map(String::as_str)
    }

    /// Whether a node reflects.
    #[must_use]
    pub fn reflects(&self, node: &str) -> bool {
        self.reflectors().any(|name| name == node)
    }
}
