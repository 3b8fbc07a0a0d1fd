//! Secrets that ask for a token of an account get one, and go with the account.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::cache::{Change, Key};
use super::client::{DeleteOptions, Refused};
use super::context::{Context, Controller, Tools};
use super::kind::{SECRETS, SERVICE_ACCOUNTS};
use super::object::{annotation, is_terminating, name, namespace, set_entry, uid};
use super::selection;
use crate::auth::User;
use crate::auth::token::{Lasting, Tokens};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub(super) fn start(context: &mut Context) {
    let user = User::new("system:kube-controller-manager", &[]);
    let tools = context.tools_of(context.client_of("kube-controller-manager", user), "serviceaccount-controller");
    let (tokens, authority) = (context.server.tokens(), context.options.root_ca.clone());
    context.run(selection::Controller::ServiceAccountToken, TokenSecrets { tools, tokens, authority });
}

/// The name of the account whose token the Secret asks for.
fn account(secret: &Value) -> Option<&str> {
    annotation(secret, ACCOUNT).filter(|name| secret["type"] == TYPE && !name.is_empty())
}

struct TokenSecrets {
    tools: Tools<Key>,
    tokens: Arc<Tokens>,
    authority: Option<String>,
}

impl Controller for TokenSecrets {
    type Key = Key;

    fn tools(&self) -> &Tools<Key> {
        &self.tools
    }

    fn note(&self, change: &Change) {
        let (Tools { cache, queue, .. }, object) = (&self.tools, change.object());
        if change.is(&SECRETS) && change.after.is_some() && account(object).is_some() {
            queue.add(Key::of(object));
        } else if change.is(&SERVICE_ACCOUNTS) {
            let secrets = cache.list(&SECRETS, namespace(object)).into_iter();
            queue.extend(secrets.filter(|secret| account(secret) == Some(name(object))).map(|secret| Key::of(&secret)));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<(), Refused> {
        let Some(secret) = self.tools.cache.get(&SECRETS, &key.namespace, &key.name) else { return Ok(()) };
        let (Some(account), false) = (account(&secret), is_terminating(&secret)) else { return Ok(()) };
        let known = annotation(&secret, ACCOUNT_UID).filter(|known| !known.is_empty());
        let owner = match self.tools.cache.get(&SERVICE_ACCOUNTS, &key.namespace, account) {
            Some(owner) => Some(owner),
            // The cache may not know it yet.
            None => match self.tools.client.get(&SERVICE_ACCOUNTS, &key.namespace, account).await {
                Ok(owner) => Some(Arc::new(owner)),
                Err(refused) if refused.is_not_found() => None,
                Err(refused) => return Err(refused),
            },
        };
        match owner.filter(|owner| known.is_none_or(|known| known == uid(owner))) {
            None => {
                let options = DeleteOptions { uid: uid(&secret).to_owned(), ..DeleteOptions::default() };
                self.tools.client.delete(&SECRETS, &secret, &options).await
            }
            Some(owner) => self.fill(&secret, &owner).await,
        }
    }
}

impl TokenSecrets {
    /// Adds what is missing.
    async fn fill(&self, secret: &Value, account: &Value) -> Result<(), Refused> {
        let mut wanted = secret.clone();
        if !wanted["data"].is_object() {
            wanted["data"] = json!({});
        }
        if let Some(authority) = &self.authority {
            wanted["data"]["ca.crt"] = json!(STANDARD.encode(authority));
        }
        let missing = |field: &str| secret["data"][field].as_str().is_none_or(str::is_empty);
        if missing("namespace") {
            wanted["data"]["namespace"] = json!(STANDARD.encode(namespace(secret)));
        }
        if missing("token") {
            let claims = Lasting::new(namespace(secret), name(account), uid(account), name(secret));
            let token = self.tokens.sign(&claims);
            let failed = |error: crate::auth::keys::KeyError| Refused {
                code: 500,
                reason: String::new(),
                message: error.to_string(),
            };
            wanted["data"]["token"] = json!(STANDARD.encode(token.map_err(failed)?));
        }
        set_entry(&mut wanted, "annotations", ACCOUNT_UID, uid(account));
        if wanted == *secret {
            return Ok(());
        }
        self.tools.client.update(&SECRETS, "", &wanted).await.map(drop)
    }
}
