//! Basic authentication against bcrypt hashes.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// Users and the bcrypt hashes of their passwords.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<String, String>);

impl Users {
    /// Checks that every hash is one; the error names the user and what is wrong.
    pub(super) fn new(users: BTreeMap<String, String>) -> Result<Self, (String, String)> {
        for (user, hash) in &users {
            if let Err(error) = bcrypt::HashParts::from_str(hash) {
                let reason =
                    format!("not a bcrypt hash ({error}); `htpasswd -nBC 10 {user}` prints one to put here");
                return Err((user.clone(), reason));
            }
        }
        Ok(Self(users))
    }

    /// Whether anyone may come in.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks passwords, and remembers those that were right, because a bcrypt costs tens of
/// milliseconds and a scraper comes every few seconds.
pub(super) struct Authenticator {
    /// By user, the digest of the name, hash and password that matched last: no more entries than
    /// there are users.
    verified: Mutex<HashMap<String, [u8; 32]>>,
    /// One bcrypt at a time, so that guessing takes no more than one core.
    one: Arc<Semaphore>,
}

impl Authenticator {
    pub(super) fn new() -> Self {
        Self { verified: Mutex::default(), one: Arc::new(Semaphore::new(1)) }
    }

    /// Whether the value of an `Authorization` header lets its sender in. An unknown user costs a
    /// bcrypt like a known one, so that the time tells nothing.
    pub(super) async fn admits(&self, users: &Users, header: Option<&HeaderValue>) -> bool {
        let Some((user, password)) = header.and_then(credentials) else { return false };
        let known = users.0.get(&user);
        let Some(hash) = known.or_else(|| users.0.values().next()).cloned() else { return false };
        let digest = digest(&user, &hash, &password);
        if known.is_some() && self.remembers(&user, &digest) {
            return true;
        }
        let Ok(permit) = Arc::clone(&self.one).acquire_owned().await else { return false };
        let verify = tokio::task::spawn_blocking(move || {
            // Held until the work is done, also when the client has gone away meanwhile.
            let _permit = permit;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        let is_right = verify.await.unwrap_or(false) && known.is_some();
        if is_right {
            self.verified().insert(user, digest);
        }
        is_right
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, HashMap<String, [u8; 32]>> {
        // An entry is whole or not there.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembers(&self, user: &str, digest: &[u8; 32]) -> bool {
        self.verified().get(user).is_some_and(|known| bool::from(known.ct_eq(digest)))
    }
}

/// User and password of `Basic …` (RFC 7617).
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&octet| octet == b':')?;
    let user = std::str::from_utf8(&decoded[..colon]).ok()?.to_owned();
    Some((user, decoded[colon + 1..].to_vec()))
}

fn digest(user: &str, hash: &str, password: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [user.as_bytes(), hash.as_bytes(), password] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // A cost of 4 is bcrypt's least, for the sake of the tests' time.
    fn users() -> Users {
        let hash = bcrypt::hash("correct horse", 4).unwrap();
        Users::new(BTreeMap::from([("alice".to_owned(), hash)])).unwrap()
    }

    fn basic(credentials: &str) -> HeaderValue {
        format!("Basic {}", BASE64_STANDARD.encode(credentials)).parse().unwrap()
    }

    #[tokio::test]
    async fn the_right_password_comes_in_and_nothing_else_does() {
        let (users, authenticator) = (users(), Authenticator::new());
        let right = basic("alice:correct horse");
        assert!(authenticator.admits(&users, Some(&right)).await);
        assert!(authenticator.admits(&users, Some(&right)).await, "and again, as remembered");
        for wrong in [
            basic("alice:wrong"),
            basic("alice:"),
            basic("mallory:correct horse"),
            basic("alice"),
            HeaderValue::from_static("Bearer YWxpY2U6Y29ycmVjdCBob3JzZQ=="),
            HeaderValue::from_static("Basic %%%"),
            HeaderValue::from_static("Basic"),
        ] {
            assert!(!authenticator.admits(&users, Some(&wrong)).await, "{wrong:?}");
        }
        assert!(!authenticator.admits(&users, None).await);
    }

    #[tokio::test]
    async fn a_changed_password_is_asked_for_though_the_old_one_is_remembered() {
        let authenticator = Authenticator::new();
        let right = basic("alice:correct horse");
        assert!(authenticator.admits(&users(), Some(&right)).await);
        let changed = BTreeMap::from([("alice".to_owned(), bcrypt::hash("another", 4).unwrap())]);
        assert!(!authenticator.admits(&Users::new(changed).unwrap(), Some(&right)).await);
        assert!(!authenticator.admits(&Users::default(), Some(&right)).await);
    }

    #[test]
    fn what_is_no_hash_is_refused_with_the_user_it_belongs_to() {
        let (user, reason) =
            Users::new(BTreeMap::from([("bob".to_owned(), "secret".to_owned())])).unwrap_err();
        assert_eq!(user, "bob");
        assert!(reason.contains("not a bcrypt hash") && reason.contains("htpasswd"), "{reason}");
    }
}
