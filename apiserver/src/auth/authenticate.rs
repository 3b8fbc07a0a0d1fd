//! Who a request comes from: by certificate, by token, or nobody; and whom it wants to be taken for.

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};

use super::attributes::Attributes;
use super::rbac::account_groups;
use super::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use crate::failure::{Failure, Outcome};
use crate::state::State;

/// An extension of requests that came over the network: they have to say who they are.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Whom the client's certificate names, if it showed one; an error if its chain is not good, or not any longer.
    pub certificate: Option<Result<User, String>>,
    /// Where it came from.
    pub peer: Option<std::net::IpAddr>,
}

/// Who asks.
///
/// # Errors
/// 401 for a token that is not good, and for a certificate that is not unless there is a good token beside it.
pub fn authenticate(state: &State, headers: &HeaderMap, extensions: &Extensions) -> Outcome<User> {
    if let Some(user) = extensions.get::<User>() {
        return Ok(user.clone());
    }
    let Some(credentials) = extensions.get::<Credentials>() else {
        return Ok(User::admin());
    };
    let refused = match &credentials.certificate {
        Some(Ok(user)) => return Ok(user.clone()),
        Some(Err(why)) => Some(why),
        None => None,
    };
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    };
    // The way of WebSockets in browsers, which cannot set other headers, is not taken: kubectl does not go it.
    if token.is_empty() {
        // Who tried to say who they are and failed is not taken for somebody who did not try.
        return match refused {
            None => Ok(User::anonymous()),
            Some(why) => {
                tracing::info!(peer = ?credentials.peer, "client certificate refused: {why}");
                Err(Failure::unauthorized())
            }
        };
    }
    let found = state.access.tokens.authenticate(state, token, &[]);
    found.map(|(user, _)| user).map_err(|_| Failure::unauthorized())
}

/// The user that the headers ask for, if they do and the real one may.
///
/// # Errors
/// 403, or 400 if a group or an attribute is given without a user.
pub fn impersonate(state: &mut State, user: &User, headers: &HeaderMap) -> Outcome<Option<User>> {
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let name = all("impersonate-user").into_iter().next().unwrap_or_default();
    let uid = all("impersonate-uid").into_iter().next().unwrap_or_default();
    let mut groups = all("impersonate-group");
    let mut wanted = User { name: name.clone(), uid, ..User::default() };
    for (header, value) in headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            wanted.extra.entry(key).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        if groups.is_empty() && wanted.extra.is_empty() && wanted.uid.is_empty() {
            return Ok(None);
        }
        let shown = format!("requested [{}] without impersonating a user", requested(&groups, &wanted));
        return Err(Failure::internal(&shown));
    }
    for request in questions(&wanted, &groups) {
        state.permit(user, &request)?;
    }
    let given = !groups.is_empty();
    if let (false, Some(account)) = (given, account_groups(&name)) {
        groups = account.to_vec();
    }
    let implied = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    let named = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
    if !groups.iter().any(named) {
        groups.push(implied.to_owned());
    }
    Ok(Some(User { groups, ..wanted }))
}

fn requested(groups: &[String], wanted: &User) -> String {
    let groups = groups.iter().map(|group| format!("{{Group  {group}    }}"));
    let extra = wanted.extra.iter().flat_map(|(key, values)| {
        values.iter().map(move |value| format!("{{UserExtra  {value}  authentication.k8s.io/v1  {key}}}"))
    });
    let uid = Some(&wanted.uid).filter(|uid| !uid.is_empty());
    let uid = uid.map(|uid| format!("{{UID  {uid}  authentication.k8s.io/v1  }}"));
    groups.chain(extra).chain(uid).collect::<Vec<_>>().join(" ")
}

/// What the real user must be allowed to.
fn questions(wanted: &User, groups: &[String]) -> Vec<Attributes> {
    let ask = |group: &str, resource: &str, sub: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: sub.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let account = wanted.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let mut all = vec![match account {
        Some((namespace, name)) => Attributes { namespace: namespace.into(), ..ask("", "serviceaccounts", "", name) },
        None => ask("", "users", "", &wanted.name),
    }];
    all.extend(groups.iter().map(|group| ask("", "groups", "", group)));
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|value| ask("authentication.k8s.io", "userextras", key, value)));
    }
    if !wanted.uid.is_empty() {
        all.push(ask("authentication.k8s.io", "uids", "", &wanted.uid));
    }
    all
}
