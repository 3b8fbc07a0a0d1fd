//! Service-account tokens: JSON Web Tokens, bound to an account and, if asked, to a pod, node or secret.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keys::{KeyError, PublicKey, SigningKey};
use super::user::User;
use crate::state::State;
use crate::store::Key;

/// Something whose deletion makes a token useless only does so after this, since nobody can know at once.
const DELETION_LEEWAY_SECONDS: i64 = 60;

/// Name and uid of what a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Name.
    pub name: String,
    /// Uid; without one, only the name counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What Kubernetes adds to the registered claims.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Private {
    /// Namespace of the account.
    pub namespace: String,
    /// The node that the token, or the pod it is bound to, is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    /// The secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
    /// The account.
    pub serviceaccount: Option<Bound>,
    /// When a client that still uses the token should be warned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The claims of a token; times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// For whom.
    pub aud: Vec<String>,
    /// Until when.
    pub exp: i64,
    /// Made when.
    pub iat: i64,
    /// Made by whom.
    pub iss: String,
    /// Its identity.
    #[serde(default)]
    pub jti: String,
    /// The bindings.
    #[serde(rename = "kubernetes.io")]
    pub private: Private,
    /// Not before.
    pub nbf: i64,
    /// The user.
    pub sub: String,
}

/// Who makes the tokens of Secrets.
const LASTING_ISSUER: &str = "kubernetes/serviceaccount";

/// The claims of a token that a Secret holds: it is good as long as the Secret and the account are there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lasting {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

impl Lasting {
    /// Of an account, in a Secret.
    pub(crate) fn new(namespace: &str, account: &str, uid: &str, secret: &str) -> Self {
        Self {
            iss: LASTING_ISSUER.into(),
            namespace: namespace.into(),
            secret: secret.into(),
            account: account.into(),
            uid: uid.into(),
            sub: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }

    /// Whose token it is, if its Secret holds it and its account is there.
    fn user(&self, state: &State, token: &str, now: Timestamp) -> Option<User> {
        let account = Bound { name: self.account.clone(), uid: self.uid.clone() };
        let namespace = self.namespace.as_str();
        let key = Key { resource: "/secrets".into(), namespace: namespace.into(), name: self.secret.clone() };
        let secret = state.store.get(&key)?;
        let held = STANDARD.decode(secret["data"]["token"].as_str()?).ok()?;
        let ending = secret["metadata"]["deletionTimestamp"].is_string();
        let good = !ending && held == token.as_bytes() && is_alive(state, "/serviceaccounts", namespace, &account, now);
        let own =
            self.iss == LASTING_ISSUER && self.sub == format!("system:serviceaccount:{namespace}:{}", self.account);
        (good && own).then(|| User::service_account(namespace, &self.account, self.uid.clone()))
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// What tokens are made and judged by.
pub struct Tokens {
    /// Says who made a token; the first audience of all tokens.
    pub issuer: String,
    /// Audiences of this server; the issuer if there are none.
    pub audiences: Vec<String>,
    /// Whether tokens of pods that ask for the default lifetime live for a year.
    pub extend: bool,
    signing: SigningKey,
    verifying: Vec<PublicKey>,
}

impl Tokens {
    /// With keys that are read from somewhere.
    pub fn new(issuer: impl Into<String>, signing: SigningKey, verifying: Vec<PublicKey>) -> Self {
        let issuer = issuer.into();
        Self { audiences: vec![issuer.clone()], issuer, extend: true, signing, verifying }
    }

    /// With a key of its own, which ends with the process.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generated(issuer: impl Into<String>) -> Result<Self, KeyError> {
        let (signing, public) = SigningKey::generate()?;
        Ok(Self::new(issuer, signing, vec![public]))
    }

    /// Signs a token.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let (alg, kid) = self.signing.header();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": alg, "kid": kid})), part(&json!(claims)));
        let signature = self.signing.sign(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that one of our keys has signed.
    fn verify(&self, token: &str) -> Option<Value> {
        let (text, signature) = token.rsplit_once('.')?;
        let (header, claims) = text.split_once('.')?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let header: Header = serde_json::from_slice(&part(header)?).ok()?;
        let signature = part(signature)?;
        let known = |key: &&PublicKey| key.verifies(&header.alg, &header.kid, text.as_bytes(), &signature);
        self.verifying.iter().find(known)?;
        serde_json::from_slice(&part(claims)?).ok()
    }

    /// The claims, if the token is one of ours and counts now.
    fn current(&self, claims: Value, now: i64) -> Option<Claims> {
        let claims: Claims = serde_json::from_value(claims).ok()?;
        (claims.iss == self.issuer && claims.nbf <= now && now < claims.exp).then_some(claims)
    }

    /// Whose token this is, and for which of the wanted audiences (empty: those of this server).
    ///
    /// # Errors
    /// Why it is not good, or no longer, in the words of a TokenReview.
    pub fn authenticate(&self, state: &State, token: &str, wanted: &[String]) -> Result<(User, Vec<String>), String> {
        let invalid = || "invalid bearer token".to_owned();
        let now = state.clock.now();
        let claims = self.verify(token).ok_or_else(invalid)?;
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        if claims["iss"] == LASTING_ISSUER {
            let claims: Lasting = serde_json::from_value(claims).map_err(|_| invalid())?;
            let user = claims.user(state, token, now).ok_or_else(invalid)?;
            // It names no audiences: it is for this server.
            return Ok((user, common(&self.audiences, wanted)?));
        }
        let claims = self.current(claims, now.as_second()).ok_or_else(invalid)?;
        let common = common(&claims.aud, wanted)?;
        let private = &claims.private;
        let account = private.serviceaccount.as_ref().ok_or_else(invalid)?;
        let of_account = format!("system:serviceaccount:{}:{}", private.namespace, account.name);
        let namespace = private.namespace.as_str();
        let bound = [
            ("/serviceaccounts", namespace, Some(account)),
            ("/pods", namespace, private.pod.as_ref()),
            ("/secrets", namespace, private.secret.as_ref()),
            // A pod's node may be gone before the pod is; only a token for the node itself falls with it.
            ("/nodes", "", private.node.as_ref().filter(|_| private.pod.is_none())),
        ];
        let alive = bound.into_iter().all(|(resource, namespace, bound)| {
            bound.is_none_or(|bound| is_alive(state, resource, namespace, bound, now))
        });
        if !alive || claims.sub != of_account {
            return Err(invalid());
        }
        let mut user = User::service_account(namespace, &account.name, account.uid.clone());
        user.extra = extra(&claims);
        Ok((user, common))
    }
}

/// The audiences that a token is for and that are wanted.
///
/// # Errors
/// There are none.
fn common(own: &[String], wanted: &[String]) -> Result<Vec<String>, String> {
    let common: Vec<String> = wanted.iter().filter(|audience| own.contains(audience)).cloned().collect();
    if common.is_empty() {
        let list = |list: &[String]| list.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ");
        return Err(format!(
            "[invalid bearer token, token audiences [{}] is invalid for the target audiences [{}]]",
            list(own),
            list(wanted)
        ));
    }
    Ok(common)
}

fn is_alive(state: &State, resource: &str, namespace: &str, bound: &Bound, now: Timestamp) -> bool {
    let key = Key { resource: resource.into(), namespace: namespace.into(), name: bound.name.clone() };
    let Some(object) = state.store.get(&key) else { return false };
    let metadata = &object["metadata"];
    let gone = metadata["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let gone = gone.is_some_and(|gone| gone.as_second() + DELETION_LEEWAY_SECONDS < now.as_second());
    !gone && metadata["uid"] == bound.uid.as_str()
}

fn extra(claims: &Claims) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        add("credential-id", &format!("JTI={}", claims.jti));
    }
    for (kind, bound) in [("node", &claims.private.node), ("pod", &claims.private.pod)] {
        if let Some(bound) = bound {
            add(&format!("{kind}-name"), &bound.name);
            add(&format!("{kind}-uid"), &bound.uid);
        }
    }
    extra
}
