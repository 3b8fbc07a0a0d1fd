//! The server as one user sees it: who asks is settled when the client is made, and every request is authorized.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};

use super::{ApiServer, Body};
use crate::auth::User;
use crate::store::Key;
use crate::verbs::locked;

/// The server, asked by one user: a `tower` service that is cheap to clone. RBAC decides on every request, as if it had
/// come with that user's certificate or token.
#[derive(Clone, Debug)]
pub struct AsUser {
    server: ApiServer,
    user: Arc<User>,
}

impl ApiServer {
    /// The server as a user sees it. Without this, who asks in process is an administrator, whom nothing is refused.
    pub fn as_user(&self, user: User) -> AsUser {
        AsUser { server: self.clone(), user: Arc::new(user) }
    }

    /// The server as a service account sees it, as its token would let it: the identity that a controller has in a
    /// cluster. Roles and bindings say what it may, and may come before or after this; so may the account, but then the
    /// user has no uid.
    pub fn as_service_account(&self, namespace: &str, name: &str) -> AsUser {
        let key =
            Key { resource: Arc::from("/serviceaccounts"), namespace: namespace.to_owned(), name: name.to_owned() };
        let account = locked(&self.state).store.get(&key);
        let uid = account.and_then(|account| account["metadata"]["uid"].as_str().map(str::to_owned));
        self.as_user(User::service_account(namespace, name, uid.unwrap_or_default()))
    }
}

impl AsUser {
    /// Who asks.
    pub fn user(&self) -> &User {
        &self.user
    }
}

impl<B> tower_service::Service<Request<B>> for AsUser
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(User::clone(&self.user));
        tower_service::Service::call(&mut self.server, request)
    }
}
