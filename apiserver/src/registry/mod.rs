//! Which resources are served: a table of built-in kinds (data), and what CustomResourceDefinitions add at run time.

pub mod discovery;
pub mod elsewhere;
pub mod openapi;

use std::sync::Arc;

use crate::schema::Node;

const BUILTIN: &str = include_str!("builtin.txt");

/// One served resource in one version.
#[derive(Debug)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind of one object.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs in the order of discovery.
    pub verbs: Vec<&'static str>,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// What an object may hold.
    pub schema: Arc<Node>,
    /// Where objects are stored: resource part of the key. Versions of a custom resource and both event groups share one.
    pub storage: Arc<str>,
    /// Version in which a custom resource is stored; decides the storage version hash.
    pub storage_version: String,
    /// Present for a custom resource.
    pub custom: Option<Arc<Custom>>,
}

/// What a CustomResourceDefinition says beyond names.
#[derive(Debug)]
pub struct Custom {
    /// Whether `/status` is apart.
    pub status: bool,
    /// Paths of `/scale`.
    pub scale: Option<ScalePaths>,
    /// `additionalPrinterColumns` of this version; nothing means the default Age column.
    pub columns: Option<serde_json::Value>,
    /// JSON paths of `selectableFields`.
    pub selectable: Vec<String>,
    /// Name of the definition.
    pub definition: String,
    /// Differs where the definition is another one, or says something else about its names, versions and schemas.
    pub identity: u64,
    /// What objects of each version may hold.
    pub schemas: Arc<std::collections::BTreeMap<String, Arc<Node>>>,
    /// `openAPIV3Schema` of this version.
    pub openapi: serde_json::Value,
    /// Its rules in CEL, if it has any.
    pub rules: Option<crate::schema::rules::Rules>,
    /// What every answer in this version warns about, if it is deprecated.
    pub warning: Option<String>,
    /// Whether the definition is being deleted: nothing new is created.
    pub terminating: bool,
}

/// Where a custom resource keeps what `/scale` shows.
#[derive(Debug)]
pub struct ScalePaths {
    /// JSON path of the wanted number.
    pub spec: String,
    /// JSON path of the observed number.
    pub status: String,
    /// JSON path of the label selector, as text.
    pub selector: Option<String>,
}

/// `pods/binding` and its like.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The last part of the path.
    pub name: String,
    /// Verbs.
    pub verbs: Vec<&'static str>,
    /// Kind of request and answer.
    pub kind: String,
    /// Group and version of that kind, if not the resource's.
    pub group_version: Option<(String, String)>,
}

impl Resource {
    /// A kind that is only sent to a subresource or shown by it, never stored.
    pub fn of_request(group: &str, version: &str, kind: &str, schema: Arc<Node>) -> Self {
        let plural = format!("{}s", kind.to_lowercase());
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            singular: kind.to_lowercase(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            namespaced: true,
            verbs: Vec::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            schema,
            storage: Arc::from(format!("{group}/{plural}")),
            storage_version: version.to_owned(),
            custom: None,
            plural,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    /// Whether the verb is served.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// `group/plural`, empty group for core; the identity behind versions.
    pub fn id(&self) -> String {
        format!("{}/{}", self.group, self.plural)
    }
}

/// `v1` or `apps/v1`.
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Every served resource.
#[derive(Clone)]
pub struct Registry {
    resources: Vec<Arc<Resource>>,
    builtin: usize,
}

impl Registry {
    /// The built-in resources; `schema` finds a schema by its name.
    ///
    /// # Errors
    /// A line of the table that cannot be read, or names no known schema.
    pub fn builtin(schema: impl Fn(&str) -> Option<Arc<Node>>) -> Result<Self, String> {
        let mut resources = Vec::new();
        for line in BUILTIN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let resource =
                parse_line(line, &schema).ok_or_else(|| format!("built-in resource cannot be read: {line}"))?;
            resources.push(Arc::new(resource));
        }
        Ok(Self { builtin: resources.len(), resources })
    }

    /// The resource at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
    }

    /// Resources of a group-version.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources.iter().filter(move |r| r.group == group && r.version == version)
    }

    /// All resources.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// Groups in the order of discovery, each with its versions, the preferred one first.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.resources {
            let versions = match groups.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) => versions,
                None => {
                    groups.push((resource.group.clone(), Vec::new()));
                    let Some((_, versions)) = groups.last_mut() else { continue };
                    versions
                }
            };
            if !versions.contains(&resource.version) {
                versions.push(resource.version.clone());
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| version_rank(version));
        }
        groups
    }

    /// Replaces all custom resources.
    pub fn set_custom(&mut self, custom: Vec<Resource>) {
        self.resources.truncate(self.builtin);
        self.resources.extend(custom.into_iter().map(Arc::new));
    }
}

/// Sorts versions as clients expect: `v2 > v1 > v1beta2 > v1beta1 > v1alpha1 > anything else`.
pub fn version_rank(version: &str) -> (u8, i64, i64, String) {
    let other = || (3, 0, 0, version.to_owned());
    let Some(rest) = version.strip_prefix('v') else { return other() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse::<i64>() else { return other() };
    let tail = &rest[digits..];
    for (stage, word) in ["", "beta", "alpha"].into_iter().enumerate() {
        let Some(minor) = tail.strip_prefix(word) else { continue };
        if word.is_empty() && minor.is_empty() {
            return (0, -major, 0, String::new());
        }
        if let (false, Ok(minor)) = (word.is_empty(), minor.parse::<i64>()) {
            return (stage as u8, -major, -minor, String::new());
        }
    }
    other()
}

fn verbs(letters: &str) -> Option<Vec<&'static str>> {
    letters
        .chars()
        .map(|letter| {
            Some(match letter {
                'c' => "create",
                'd' => "delete",
                'D' => "deletecollection",
                'g' => "get",
                'l' => "list",
                'p' => "patch",
                'u' => "update",
                'w' => "watch",
                _ => return None,
            })
        })
        .collect()
}

fn words(list: &str) -> Vec<String> {
    list.split(',').filter(|word| *word != "-").map(str::to_owned).collect()
}

fn parse_line(line: &str, schema: &impl Fn(&str) -> Option<Arc<Node>>) -> Option<Resource> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [group, version, plural, singular, kind, scope, letters, short, categories, schema_name, subs] = columns[..]
    else {
        return None;
    };
    let group = if group == "-" { "" } else { group };
    let subresources = words(subs).iter().map(|text| subresource(text, kind)).collect::<Option<Vec<_>>>()?;
    let storage = if plural == "events" { "/events".to_owned() } else { format!("{group}/{plural}") };
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: singular.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        namespaced: scope == "n",
        verbs: verbs(letters)?,
        short_names: words(short),
        categories: words(categories),
        subresources,
        schema: schema(schema_name)?,
        storage: Arc::from(storage),
        // Some are stored in another version, which clients can see in the hash.
        storage_version: match group {
            "apiextensions.k8s.io" => "v1beta1".into(),
            "autoscaling" => "v2".into(),
            _ => version.to_owned(),
        },
        custom: None,
    })
}

fn subresource(text: &str, kind: &str) -> Option<Subresource> {
    let parts: Vec<&str> = text.split(':').collect();
    let group_version = match parts.get(3) {
        Some(text) => text.split_once('/').map(|(group, version)| (group.to_owned(), version.to_owned())),
        None => None,
    };
    let (name, letters) = (parts.first()?, parts.get(1)?);
    let kind = (*parts.get(2).unwrap_or(&kind)).to_owned();
    Some(Subresource { name: (*name).to_owned(), verbs: verbs(letters)?, kind, group_version })
}
