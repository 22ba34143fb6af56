//! Basic authentication against bcrypt hashes.

use super::connection::Connection;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq;

/// Users and the bcrypt hashes of their passwords.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<String, String>);

impl Users {
    /// Checks that every hash is one that can be verified in reasonable time; the error names the user
    /// and what is wrong.
    pub(super) fn new(users: BTreeMap<String, String>) -> Result<Self, (String, String)> {
        for (user, hash) in &users {
            if let Err(reason) = check(hash) {
                let reason = format!("{reason}; `htpasswd -nBC 10 {user}` prints one to put here");
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

/// The costs of bcrypt that are taken: each further one doubles the time, which is some 50 ms at 10.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

fn check(hash: &str) -> Result<(), String> {
    let parts = bcrypt::HashParts::from_str(hash).map_err(|error| format!("not a bcrypt hash ({error})"))?;
    let cost = parts.get_cost();
    if !COSTS.contains(&cost) {
        return Err(format!(
            "bcrypt cost {cost} is not between {} and {}; each login would take {}",
            COSTS.start(),
            COSTS.end(),
            if cost > *COSTS.end() { "too long" } else { "no time at all" }
        ));
    }
    // Salt and digest, in bcrypt's own alphabet.
    let rest = hash.rsplit('$').next().unwrap_or_default();
    let is_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    if rest.len() == 53 && rest.bytes().all(is_alphabet) {
        Ok(())
    } else {
        Err("not a bcrypt hash (its salt and digest are not 53 characters of ./A-Za-z0-9)".to_owned())
    }
}

/// Checks passwords, and remembers those that were right, because a bcrypt costs tens of
/// milliseconds and a scraper comes every few seconds.
///
/// One bcrypt runs at a time, so that guessing takes no more than one core. Who waits for it is let in
/// by turns: one request of each connection waits for the turn of its connection, one connection of each
/// peer for the turn of its peer, and one of each peer for the bcrypt. Locks are handed on in the order in
/// which they were asked for, so a flood of guesses costs another peer the time of one guess, and another
/// connection of the same peer the time of one guess for each connection.
pub(super) struct Authenticator {
    /// By user, the digest of the name, hash and password that matched last: no more entries than
    /// there are users.
    verified: Mutex<HashMap<String, [u8; 32]>>,
    /// Whose turn it is among all peers.
    turn: Turn,
}

/// Passed from one to the next in the order of asking.
type Turn = Arc<tokio::sync::Mutex<()>>;

impl Authenticator {
    pub(super) fn new() -> Self {
        Self { verified: Mutex::default(), turn: Arc::default() }
    }

    /// Whether the value of an `Authorization` header lets its sender in. An unknown user costs a
    /// bcrypt like a known one, so that the time tells nothing.
    pub(super) async fn admits(
        &self,
        users: &Users,
        header: Option<&HeaderValue>,
        connection: &Connection,
    ) -> bool {
        let Some((user, password)) = header.and_then(credentials) else { return false };
        let known = users.0.get(&user);
        let Some(hash) = known.or_else(|| users.0.values().next()).cloned() else { return false };
        let digest = digest(&user, &hash, &password);
        if known.is_some() && self.remembers(&user, &digest) {
            return true;
        }
        let mut turns = Vec::with_capacity(3);
        for turn in [&connection.password, &connection.share.password, &self.turn] {
            turns.push(Arc::clone(turn).lock_owned().await);
        }
        let verify = tokio::task::spawn_blocking(move || {
            // Held until the work is done, also when the client has gone away meanwhile.
            let _turns = turns;
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
    let colon = decoded.iter().position(|&byte| byte == b':')?;
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
    use super::super::connection::{Peer, Share};
    use super::*;
    use std::time::Instant;

    // A cost of 4 is bcrypt's least, for the sake of the tests' time.
    fn users() -> Users {
        let hash = bcrypt::hash("correct horse", 4).unwrap();
        Users::new(BTreeMap::from([("alice".to_owned(), hash)])).unwrap()
    }

    fn basic(credentials: &str) -> HeaderValue {
        format!("Basic {}", BASE64_STANDARD.encode(credentials)).parse().unwrap()
    }

    fn connection(peer: &str, share: &Arc<Share>) -> Connection {
        let peer = Peer::of(format!("{peer}:1").parse().unwrap());
        Connection::new(peer, Arc::clone(share), Instant::now())
    }

    #[tokio::test]
    async fn the_right_password_comes_in_and_nothing_else_does() {
        let (users, authenticator) = (users(), Authenticator::new());
        let connection = connection("192.0.2.1", &Arc::default());
        let right = basic("alice:correct horse");
        assert!(authenticator.admits(&users, Some(&right), &connection).await);
        assert!(authenticator.admits(&users, Some(&right), &connection).await, "and again, as remembered");
        for wrong in [
            basic("alice:wrong"),
            basic("alice:"),
            basic("mallory:correct horse"),
            basic("alice"),
            HeaderValue::from_static("Bearer YWxpY2U6Y29ycmVjdCBob3JzZQ=="),
            HeaderValue::from_static("Basic %%%"),
            HeaderValue::from_static("Basic"),
        ] {
            assert!(!authenticator.admits(&users, Some(&wrong), &connection).await, "{wrong:?}");
        }
        assert!(!authenticator.admits(&users, None, &connection).await);
    }

    #[tokio::test]
    async fn a_changed_password_is_asked_for_though_the_old_one_is_remembered() {
        let authenticator = Authenticator::new();
        let connection = connection("192.0.2.1", &Arc::default());
        let right = basic("alice:correct horse");
        assert!(authenticator.admits(&users(), Some(&right), &connection).await);
        let changed = BTreeMap::from([("alice".to_owned(), bcrypt::hash("another", 4).unwrap())]);
        assert!(!authenticator.admits(&Users::new(changed).unwrap(), Some(&right), &connection).await);
        assert!(!authenticator.admits(&Users::default(), Some(&right), &connection).await);
    }

    #[tokio::test]
    async fn a_crowd_of_guesses_costs_another_peer_one_guess_and_another_connection_one_of_each() {
        let (users, authenticator) = (users(), Authenticator::new());
        let (right, guess) = (basic("alice:correct horse"), basic("alice:guess"));
        let share = Arc::default();
        let flood: Vec<_> = (0..20).map(|_| connection("192.0.2.1", &share)).collect();
        let same_peer = connection("192.0.2.1", &share);
        let other_peer = connection("198.51.100.1", &Arc::default());

        let done = Mutex::new(Vec::new());
        let ask = |who: &'static str, connection, header| {
            let (users, authenticator, done) = (&users, &authenticator, &done);
            async move {
                let is_admitted = authenticator.admits(users, Some(header), connection).await;
                done.lock().unwrap().push((who, is_admitted));
            }
        };
        // In the order in which they are asked: ten guesses on each connection, then the two.
        let guesses = flood.iter().flat_map(|connection| (0..10).map(move |_| connection));
        let guesses =
            futures_util::future::join_all(guesses.map(|connection| ask("guess", connection, &guess)));
        let rights = futures_util::future::join(
            ask("same peer", &same_peer, &right),
            ask("other peer", &other_peer, &right),
        );
        // No bcrypt begins before all of them wait.
        let held = Arc::clone(&authenticator.turn).lock_owned().await;
        futures_util::future::join3(guesses, rights, async { drop(held) }).await;

        let done = done.into_inner().unwrap();
        let place = |who| done.iter().position(|(other, _)| *other == who).unwrap();
        assert!(done.iter().all(|(who, is_admitted)| *is_admitted == (*who != "guess")));
        // Who comes next is exact; several may end before one of them notices.
        assert!(place("other peer") < flood.len(), "after the guess that had begun: {done:?}");
        assert!(
            place("same peer") < 2 * flood.len(),
            "after one guess of each connection of the peer: {done:?}"
        );
    }

    #[test]
    fn what_is_no_hash_is_refused_with_the_user_it_belongs_to() {
        let (user, reason) =
            Users::new(BTreeMap::from([("bob".to_owned(), "secret".to_owned())])).unwrap_err();
        assert_eq!(user, "bob");
        assert!(reason.contains("not a bcrypt hash") && reason.contains("htpasswd"), "{reason}");

        let hash = bcrypt::hash("correct horse", 4).unwrap();
        for (wrong, said) in [
            (hash.replacen("$04$", "$31$", 1), "bcrypt cost 31 is not between 4 and 16"),
            (hash.replacen("$04$", "$03$", 1), "bcrypt cost 3 is not between 4 and 16"),
            (hash[..59].to_owned(), "not a bcrypt hash"),
            (format!("{}!", &hash[..59]), "not a bcrypt hash"),
        ] {
            let (_, reason) = Users::new(BTreeMap::from([("bob".to_owned(), wrong)])).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
    }
}
