//! Address families of labs with two racks: their subnets and pools.

/// An address family of a cluster.
pub(crate) struct Family {
    pub(crate) pool: &'static str,
    pub(crate) cidr: &'static str,
    /// Of both racks, each with its first router.
    pub(crate) subnets: [(&'static str, &'static str); 2],
}

pub(crate) const DUAL: &[Family] = &[
    Family {
        pool: "v4",
        cidr: "10.42.0.0/16",
        subnets: [("172.31.1.0/24", "172.31.1.1"), ("172.31.2.0/24", "172.31.2.1")],
    },
    Family { pool: "v6", cidr: "fd42::/48", subnets: [("fd31:1::/64", "fd31:1::1"), ("fd31:2::/64", "fd31:2::1")] },
];
pub(crate) const FOUR: &[Family] = DUAL.split_at(1).0;
/// Of a cluster that has no IPv4 at all.
pub(crate) const SIX: &[Family] = DUAL.split_at(1).1;

/// A pool of each family.
pub(crate) fn pools(families: &[Family], encapsulations: &[&str]) -> String {
    let pool = |(Family { pool, cidr, .. }, encapsulation): (&Family, &&str)| {
        format!(
            "---\napiVersion: twill.network/v1\nkind: IPPool\nmetadata: {{name: {pool}}}\nspec: {{cidr: '{cidr}', encapsulation: {encapsulation}}}\n"
        )
    };
    families.iter().zip(encapsulations).map(pool).collect()
}

/// The subnets of a rack, 0 or 1, as a lab file has them.
pub(crate) fn subnets(families: &[Family], rack: usize) -> String {
    let all: Vec<String> = families.iter().map(|family| format!("'{}'", family.subnets[rack].0)).collect();
    format!("[{}]", all.join(", "))
}

/// Two racks behind ToRs and a spine: n1 and n2 in r1, n3 in r2.
pub(crate) fn racks(families: &[Family], rest: &str) -> String {
    let (r1, r2) = (subnets(families, 0), subnets(families, 1));
    format!(
        "apiVersion: twill.network/v1
kind: Lab
metadata: {{name: test}}
spec:
  racks:
  - {{name: r1, subnets: {r1}, nodes: [n1, n2], tor: {{asn: 65101}}}}
  - {{name: r2, subnets: {r2}, nodes: [n3], tor: {{asn: 65102}}}}
  spine: {{asn: 65000}}
{rest}"
    )
}
