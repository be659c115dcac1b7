//! Manifests: YAML text with one or many objects, as people write them.
//!
//! In flows the text; out flow objects with their kind, each checked by the rules of [`crate::validate`], or the first thing
//! that is wrong with file and line. A field that a kind of ours or a NetworkPolicy does not have is refused: what is
//! misspelt there would otherwise silently open or close something.

mod tree;

use crate::validate::{self, Problem};
use crate::{Kind, Object, known, names, words};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tree::Tree;

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its kind.
    pub kind: Kind,
    /// The object; of a kind with namespaces it has one (`default` if none was written).
    pub value: Value,
    /// Line where it begins, from 1.
    pub line: u64,
}

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct ManifestError {
    /// As it was given.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// One sentence.
    pub problem: String,
}

/// A document of a file format of ours, whose kind no datastore has.
#[derive(Debug)]
pub struct Document {
    tree: Tree,
    file: String,
}

impl Document {
    /// As its type.
    ///
    /// # Errors
    /// The first field that is not of its type, with its line.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ManifestError> {
        words::decode(&self.tree.value())
            .map_err(|problem| self.refused(&problem.field, format!("{}: {}", problem.field, problem.problem)))
    }

    /// Line of the field at a path such as `cases[0].from`; of the nearest that there is.
    #[must_use]
    pub fn line_of(&self, field: &str) -> u64 {
        self.tree.line_of(field)
    }

    /// That something is wrong with a field.
    #[must_use]
    pub fn refused(&self, field: &str, problem: String) -> ManifestError {
        ManifestError { file: self.file.clone(), line: self.line_of(field), problem }
    }

    /// The file that it stands in, as it was given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

/// Reads all objects of a text. `file` is for messages. Documents that are empty are skipped, `List`s are taken apart.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str, file: &str) -> Result<Vec<Manifest>, ManifestError> {
    read(text, file, None).map(|(manifests, _)| manifests)
}

/// The same for a text that also has documents of another kind of ours, which are given apart.
///
/// # Errors
/// The first thing that is wrong with an object.
pub fn parse_with(text: &str, file: &str, other: &str) -> Result<(Vec<Manifest>, Vec<Document>), ManifestError> {
    read(text, file, Some(other))
}

fn read(text: &str, file: &str, other: Option<&str>) -> Result<(Vec<Manifest>, Vec<Document>), ManifestError> {
    let error = |line: u64, problem: String| ManifestError { file: file.to_owned(), line, problem };
    let documents = tree::documents(text).map_err(|(line, problem)| error(line, problem))?;
    let (mut manifests, mut others) = (Vec::new(), Vec::new());
    for tree in documents.into_iter().flat_map(items) {
        if other.is_some() && tree.text("kind") == other {
            others.push(Document { tree, file: file.to_owned() });
        } else {
            manifests.push(manifest(&tree).map_err(|(line, problem)| error(line, problem))?);
        }
    }
    Ok((manifests, others))
}

/// Reads a text that is one document of a type of its own, a lab file, say. `file` is for messages.
///
/// # Errors
/// The first thing that is wrong, with its line and field.
pub fn document<T: DeserializeOwned>(text: &str, file: &str) -> Result<T, ManifestError> {
    let error = |line: u64, problem: String| ManifestError { file: file.to_owned(), line, problem };
    let documents = tree::documents(text).map_err(|(line, problem)| error(line, problem))?;
    let count = documents.len();
    let Ok([tree]) = <[Tree; 1]>::try_from(documents) else {
        return Err(error(1, format!("the file has {count} documents; it must have one")));
    };
    Document { tree, file: file.to_owned() }.decode()
}

/// The items of a `List` or of a list of one kind (`PodList`), or the document itself.
fn items(document: Tree) -> Vec<Tree> {
    let list = document.text("kind").is_some_and(|kind| kind.ends_with("List"));
    let is_list = list && (document.has_items() || document.text("kind") == Some("List"));
    if is_list { document.into_items() } else { vec![document] }
}

fn manifest(document: &Tree) -> Result<Manifest, (u64, String)> {
    let line = document.line();
    let missing =
        |field: &str| (line, format!("{field} is missing; every object has apiVersion, kind and metadata.name"));
    let api_version = document.text("apiVersion").ok_or_else(|| missing("apiVersion"))?;
    let name = document.text("kind").ok_or_else(|| missing("kind"))?;
    let kind = kind(api_version, name).map_err(|problem| (line, problem))?;
    let mut value = document.value();
    let metadata = &mut value["metadata"];
    if !metadata.is_object() {
        return Err(missing("metadata"));
    }
    for field in ["name", "namespace"] {
        let written = &metadata[field];
        if !written.is_null() && !written.is_string() {
            // `namespace: y` is a boolean in YAML; taken for none, it would put the object somewhere else.
            let problem = format!("metadata.{field}: {written} is no text; put what you meant in quotes");
            return Err((document.line_of(&format!("metadata.{field}")), problem));
        }
    }
    if kind.namespaced && metadata["namespace"].as_str().unwrap_or_default().is_empty() {
        metadata["namespace"] = "default".into();
    }
    let checked = check(&kind, &value);
    checked.map_err(|problem| (document.line_of(&problem.field), problem.of(&kind, &value).to_string()))?;
    Ok(Manifest { kind, value, line })
}

/// Policies that others have under the same name.
const POLICIES: [(&str, &str); 2] =
    [("networking.k8s.io/v1", "NetworkPolicy"), ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy")];

fn kind(api_version: &str, name: &str) -> Result<Kind, String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match known::of(group, name) {
        Some(kind) if kind.version == version => Ok(kind),
        Some(kind) => Err(format!("{name} is read as {} only, not {api_version}", kind.api_version())),
        None if group == names::GROUP => {
            let own: Vec<String> =
                known::all().filter(|k| k.group == names::GROUP).map(|k| k.kind.to_string()).collect();
            Err(format!("{name} is no kind of {}; there are {}", names::GROUP, own.join(", ")))
        }
        // Under another group it is another project's, or a slip of the pen: in either case nobody would be held to it.
        None => match POLICIES.iter().find(|(_, policy)| *policy == name) {
            Some((group, _)) => Err(format!("{name} is read as {group} only, not {api_version}")),
            None => Ok(known::guess(group, version, name)),
        },
    }
}

fn check(kind: &Kind, value: &Value) -> Result<(), Problem> {
    match (kind.group.as_ref(), kind.kind.as_ref()) {
        (names::GROUP, "IPPool") => no_unknown_field::<crate::IPPool>(value)?,
        (names::GROUP, "IPBlock") => no_unknown_field::<crate::IPBlock>(value)?,
        (names::GROUP, "IPReservation") => no_unknown_field::<crate::IPReservation>(value)?,
        (names::GROUP, "BGPConfiguration") => no_unknown_field::<crate::BGPConfiguration>(value)?,
        (names::GROUP, "BGPPeer") => no_unknown_field::<crate::BGPPeer>(value)?,
        (names::GROUP, "BGPFilter") => no_unknown_field::<crate::BGPFilter>(value)?,
        (names::GROUP, "NamespaceIsolation") => no_unknown_field::<crate::NamespaceIsolation>(value)?,
        (names::GROUP, "HostPolicy") => no_unknown_field::<crate::HostPolicy>(value)?,
        (names::GROUP, "NodeNetwork") => no_unknown_field::<crate::NodeNetwork>(value)?,
        ("networking.k8s.io", "NetworkPolicy") => no_unknown_field::<crate::NetworkPolicy>(value)?,
        (names::POLICY_GROUP, "ClusterNetworkPolicy") => no_unknown_field::<crate::ClusterNetworkPolicy>(value)?,
        _ => {}
    }
    validate::admit_fields(kind, &mut value.clone(), None)
}

/// The spec of an object that stands in another file than a manifest.
///
/// # Errors
/// A field that the kind does not have, or the first rule of the kind that it breaks; the field begins with `spec`.
pub fn spec<K: Object>(name: &str, spec: &Value) -> Result<K, Problem> {
    let mut object = serde_json::json!({"metadata": {"name": name}, "spec": spec});
    no_unknown_field::<K>(&object)?;
    validate::admit_fields(&K::kind(), &mut object, None)?;
    words::decode(&object)
}

/// Every field of the document is one of the type.
fn no_unknown_field<K: Object>(value: &Value) -> Result<(), Problem> {
    // A document of the wrong shape is refused by its kind's rules, in better words.
    let mut unknown = None;
    let _: Result<K, _> = serde_ignored::deserialize(value, |path| {
        let path = field_path(&path.to_string());
        // These two are of the document, not of the types.
        if path != "apiVersion" && path != "kind" {
            unknown.get_or_insert(path);
        }
    });
    let problem = |path| Problem::new(path, "is no field of this kind; correct its name or leave it out");
    unknown.map_or(Ok(()), |path| Err(problem(path)))
}

/// serde_ignored's `spec.?.ingress.0` as people write it: `spec.ingress[0]`.
fn field_path(path: &str) -> String {
    path.split('.').filter(|step| *step != "?").fold(String::new(), |mut path, step| {
        if step.parse::<usize>().is_ok() {
            return path + "[" + step + "]";
        }
        if !path.is_empty() {
            path.push('.');
        }
        path + step
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "f.yaml").unwrap_err().to_string()
    }

    #[test]
    fn many_documents_with_gaps_and_lists() {
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: List\nitems:\n\
                    - apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  spec: {containers: [{name: c}]}\n\
                    - {apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: a}}\n";
        let found = parse(text, "f.yaml").unwrap();
        let brief: Vec<_> =
            found.iter().map(|m| (m.kind.plural.as_ref(), m.value["metadata"]["namespace"].as_str(), m.line)).collect();
        assert_eq!(brief, [("namespaces", None, 4), ("pods", Some("default"), 11), ("deployments", Some("a"), 15)]);
    }

    #[test]
    fn a_name_or_namespace_that_is_no_text_is_refused_rather_than_taken_for_none() {
        let text = error("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\n");
        assert_eq!(text, "f.yaml:3: metadata.name: true is no text; put what you meant in quotes");
        for written in ["y", "5", "[a]"] {
            let text =
                error(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  namespace: {written}\n"));
            assert!(text.starts_with("f.yaml:5: metadata.namespace: ") && text.ends_with("in quotes"), "{text}");
        }
    }

    #[test]
    fn thousands_of_objects_in_one_file_are_read() {
        let text: String =
            (0..3000).map(|n| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: n{n}}}\n")).collect();
        assert_eq!(parse(&text, "f.yaml").unwrap().len(), 3000);
    }

    #[test]
    fn a_list_of_one_kind_is_taken_apart() {
        let text = r#"{"apiVersion": "v1", "kind": "NamespaceList", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}]}"#;
        let found = parse(text, "f.json").unwrap();
        assert_eq!(found.iter().map(|m| m.value["metadata"]["name"].as_str()).collect::<Vec<_>>(), [Some("a")]);
        let text = "{apiVersion: example.org/v1, kind: AllowList, metadata: {name: x}}";
        assert_eq!(parse(text, "f").unwrap()[0].kind.kind, "AllowList");
    }

    #[test]
    fn unknown_kinds_are_kept_and_misspelt_ones_of_ours_are_not() {
        let found = parse("{apiVersion: example.org/v1, kind: Policy, metadata: {name: x}}", "f").unwrap();
        assert_eq!(found[0].kind.plural, "policies");
        let text = error("apiVersion: twill.network/v1\nkind: IPPol\nmetadata: {name: x}\n");
        assert!(text.starts_with("f.yaml:1: IPPol is no kind of twill.network; there are IPPool"), "{text}");
        for other in ["networking.k8s.io/v1beta1", "v1", "networking.k8s/v1", "projectcalico.org/v3"] {
            let text = error(&format!("apiVersion: {other}\nkind: NetworkPolicy\nmetadata: {{name: x}}\n"));
            assert!(
                text.contains(&format!("NetworkPolicy is read as networking.k8s.io/v1 only, not {other}")),
                "{text}"
            );
        }
        let text = error("apiVersion: networking.k8s.io/v1\nkind: ClusterNetworkPolicy\nmetadata: {name: x}\n");
        assert!(text.contains("is read as policy.networking.k8s.io/v1alpha2 only"), "{text}");
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_path_and_line() {
        let text = "apiVersion: twill.network/v1\nkind: IPPool\nmetadata: {name: p}\nspec:\n  cidr: 10.0.0.0/16\n  encapsulation:\n    protocl: VXLAN\n";
        assert_eq!(
            error(text),
            "f.yaml:7: IPPool p: spec.encapsulation.protocl: is no field of this kind; correct its name or leave it out"
        );
        let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n  podSelector: {}\n  ingress:\n  - from:\n    - podSelektor: {}\n";
        assert_eq!(
            error(text),
            "f.yaml:8: NetworkPolicy default/p: spec.ingress[0].from[0].podSelektor: is no field of this kind; correct its name or leave it out"
        );
    }

    #[test]
    fn a_value_that_breaks_a_rule_is_refused_with_its_line() {
        let text = "apiVersion: twill.network/v1\nkind: IPPool\nmetadata:\n  name: p\nspec:\n  cidr: 10.0.0.1/16\n";
        assert_eq!(error(text), "f.yaml:6: IPPool p: spec.cidr: 10.0.0.1/16 has host bits set; write 10.0.0.0/16");
        let text =
            error("apiVersion: twill.network/v1\nkind: IPPool\nmetadata: {name: p}\nspec:\n  cidr: 10.0.0.0/99\n");
        assert!(text.starts_with("f.yaml:5: IPPool p: spec.cidr: "), "{text}");
    }

    #[test]
    fn yaml_that_is_none_is_refused_with_its_line() {
        assert!(error("a: b\n: - :\n  x").starts_with("f.yaml:2: "), "{}", error("a: b\n: - :\n  x"));
        assert!(error("- 1\n").starts_with("f.yaml:1: apiVersion is missing"));
        assert!(error("apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {name: p}\n").starts_with("f.yaml:3: "));
    }
}
