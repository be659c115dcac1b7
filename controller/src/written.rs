//! A status that is to be written: of which object, what to tell then, and how soon.

use crate::conditions::{ACCEPTED, OWN_ACCEPTED};
use crate::events::{tells, transitions};
use crate::plan::{AT_ONCE, LATER, SOON, Written};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use twill_crds::bgp::BGPConfigurationStatus;
use twill_crds::bgp_filter::BGPFilterStatus;
use twill_crds::cluster_network_policy::ClusterNetworkPolicyStatus;
use twill_crds::ip_reservation::IPReservationStatus;
use twill_crds::namespace_isolation::NamespaceIsolationStatus;
use twill_crds::{BGPConfiguration, BGPFilter, ClusterNetworkPolicy, IPReservation, NamespaceIsolation, Object};
use twill_datastore::event::Occurrence;

/// A kind whose status the controller writes.
pub(crate) trait Status: Object {
    /// Its status.
    type Status: Clone + Default + PartialEq;
    /// As the kind is called in [`Due::kind`].
    const KIND: &str;
    /// The type of the condition that it is understood.
    const ACCEPTED: &str;
    /// As it is stored.
    fn status(&self) -> Option<&Self::Status>;
    /// What it says.
    fn conditions(status: &Self::Status) -> &[Condition];
    /// The object with this one.
    fn with(self, status: Self::Status) -> Written;
    /// Whether something else is decided than before, which is waited for.
    fn decides(_old: &Self::Status, _new: &Self::Status) -> bool {
        false
    }
}

/// A status that is not as stored.
pub(crate) struct Due {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) written: Written,
    pub(crate) tells: Vec<Occurrence>,
    /// Milliseconds since the last write.
    pub(crate) pause: u64,
}

impl Due {
    /// What is to be written, if anything.
    pub(crate) fn of<K: Status>(object: &K, wanted: K::Status) -> Option<Self> {
        let stored = object.status().cloned().unwrap_or_default();
        if stored == wanted {
            return None;
        }
        let (old, new) = (K::conditions(&stored), K::conditions(&wanted));
        let tells = tells(object, old, new, &[(K::ACCEPTED, false)]);
        let pause = match transitions(old) != transitions(new) {
            _ if K::decides(&stored, &wanted) => AT_ONCE,
            true => SOON,
            false => LATER,
        };
        Some(Self { kind: K::KIND, name: object.name().to_owned(), tells, pause, written: object.clone().with(wanted) })
    }
}

macro_rules! status {
    ($kind:ident, $status:ident, $written:ident, $accepted:expr $(, $decides:item)?) => {
        impl Status for $kind {
            type Status = $status;
            const KIND: &str = stringify!($kind);
            const ACCEPTED: &str = $accepted;
            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }
            fn conditions(status: &$status) -> &[Condition] {
                &status.conditions
            }
            fn with(mut self, status: $status) -> Written {
                self.status = Some(status);
                Written::$written(Box::new(self))
            }
            $($decides)?
        }
    };
}

status!(ClusterNetworkPolicy, ClusterNetworkPolicyStatus, ClusterPolicy, OWN_ACCEPTED);
status!(BGPFilter, BGPFilterStatus, Filter, ACCEPTED);
status!(IPReservation, IPReservationStatus, Reservation, ACCEPTED);
status!(NamespaceIsolation, NamespaceIsolationStatus, Isolation, ACCEPTED);
status!(
    BGPConfiguration,
    BGPConfigurationStatus,
    Configuration,
    ACCEPTED,
    fn decides(old: &BGPConfigurationStatus, new: &BGPConfigurationStatus) -> bool {
        old.sessions != new.sessions
    }
);
