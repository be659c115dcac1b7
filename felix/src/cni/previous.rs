//! `prevResult`: what plugins before ours in the list made, or what our own ADD and those after it said (CNI specification, section 5).

use super::{Failure, Reason};
use serde_json::{Value, json};
use std::net::IpAddr;

/// A result of other plugins; empty if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    interfaces: Vec<Value>,
    ips: Vec<Value>,
    routes: Vec<Value>,
    dns: Value,
}

impl Previous {
    /// Reads `prevResult` of a configuration.
    ///
    /// # Errors
    /// It is not of the form that the specification has.
    pub fn read(config: &Value) -> Result<Self, Failure> {
        let result = match config.get("prevResult") {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(result @ Value::Object(_)) => result,
            Some(other) => return Err(wrong(&format!("{other} is not a result"))),
        };
        let list = |field: &str| match &result[field] {
            Value::Null => Ok(Vec::new()),
            Value::Array(all) if all.iter().all(Value::is_object) => Ok(all.clone()),
            other => Err(wrong(&format!("{field} {other} is not a list of objects"))),
        };
        let previous = Self {
            interfaces: list("interfaces")?,
            ips: list("ips")?,
            routes: list("routes")?,
            dns: result["dns"].clone(),
        };
        match previous.ips.iter().find(|ip| address(ip).is_none()) {
            Some(ip) => Err(wrong(&format!("{ip} among its ips has no address"))),
            None => Ok(previous),
        }
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ips.iter().filter_map(address)
    }

    /// Whether it says that an interface of this name is in this sandbox.
    #[must_use]
    pub fn has_interface(&self, name: &str, sandbox: &str) -> bool {
        self.interfaces.iter().any(|interface| interface["name"] == name && interface["sandbox"] == sandbox)
    }

    /// Whether it says that an interface of this name is in any sandbox, or, without one, on the host.
    #[must_use]
    pub fn names(&self, name: &str, in_sandbox: bool) -> bool {
        let in_some = |interface: &Value| interface["sandbox"].as_str().is_some_and(|path| !path.is_empty());
        self.interfaces.iter().any(|interface| interface["name"] == name && in_some(interface) == in_sandbox)
    }

    /// Puts what it has before what a result of ours has.
    pub fn prepend_to(&self, result: &mut Value) {
        let before = self.interfaces.len();
        for ip in result["ips"].as_array_mut().into_iter().flatten() {
            if let Some(index) = ip["interface"].as_u64() {
                ip["interface"] = json!(index + u64::try_from(before).unwrap_or_default());
            }
        }
        for (field, theirs) in [("interfaces", &self.interfaces), ("ips", &self.ips), ("routes", &self.routes)] {
            if let Some(ours) = result[field].as_array_mut() {
                ours.splice(0..0, theirs.iter().cloned());
            }
        }
        let has_dns = |dns: &Value| dns.as_object().is_some_and(|dns| !dns.is_empty());
        if !has_dns(&result["dns"]) && has_dns(&self.dns) {
            result["dns"] = self.dns.clone();
        }
    }
}

fn address(ip: &Value) -> Option<IpAddr> {
    ip["address"].as_str()?.split('/').next()?.parse().ok()
}

fn wrong(what: &str) -> Failure {
    Failure::new(Reason::InvalidConfig, format!("prevResult: {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_stands_before_and_indices_move() {
        let config = json!({"prevResult": {
            "interfaces": [{"name": "d0", "sandbox": "/n"}, {"name": "h0"}],
            "ips": [{"address": "192.0.2.1/24", "interface": 0}],
            "dns": {"domain": "before"},
        }});
        let previous = Previous::read(&config).unwrap();
        assert!(previous.has_interface("d0", "/n") && !previous.has_interface("d0", "/m"));
        assert!(previous.names("h0", false) && !previous.names("h0", true) && previous.names("d0", true));
        let mut result = json!({
            "interfaces": [{"name": "twl0"}, {"name": "eth0", "sandbox": "/n"}],
            "ips": [{"address": "10.42.0.5/32", "interface": 1}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {},
        });
        previous.prepend_to(&mut result);
        let names: Vec<&Value> = result["interfaces"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["d0", "h0", "twl0", "eth0"]);
        assert_eq!((&result["ips"][0]["interface"], &result["ips"][1]["interface"]), (&json!(0), &json!(3)));
        assert_eq!(result["dns"], json!({"domain": "before"}));
        let mut same = result.clone();
        Previous::default().prepend_to(&mut same);
        assert_eq!(same, result);
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for wrong in [json!(7), json!([]), json!({"ips": 7}), json!({"ips": [7]}), json!({"ips": [{"address": "x"}]})] {
            let failure = Previous::read(&json!({"prevResult": wrong})).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidConfig, "{failure}");
        }
        assert_eq!(Previous::read(&json!({"prevResult": null})).unwrap(), Previous::default());
    }
}
