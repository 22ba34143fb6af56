//! Files that are read again: countries, lists, networks.

use super::Drain;
use super::state::DrainState;
use crate::exposition::Reloadable;
use crate::geoip;
use crate::system::clock;
use crate::system::condition::{Fault, Notice};
use crate::system::follow::Look;
use crate::who;
use crate::who::lists::SourceList;
use std::path::PathBuf;
use tracing::{error, info};

impl Drain {
    /// Follows the file of another country database; `None`: the embedded one.
    pub(super) fn follow_geoip(&mut self, path: Option<PathBuf>) {
        let followed = self.geoip.follow(geoip::DatabaseFiles::new(path));
        tell_not_followed(Reloadable::Geoip, followed);
    }

    /// Follows other source lists.
    pub(super) fn follow_lists(&mut self, lists: Vec<SourceList>) {
        tell_not_followed(Reloadable::Lists, self.lists.follow(who::ListFiles::new(lists)));
    }

    /// Follows the file of another ASN database, or none.
    pub(super) fn follow_asn(&mut self, path: Option<PathBuf>) {
        tell_not_followed(Reloadable::Asn, self.asn.follow(who::AsnFiles::new(path)));
    }

    /// Takes over databases that were read again, and says in the log what has become of them.
    pub(super) fn look_at_databases(&mut self, state: &mut DrainState) {
        let health = self.exposition.health();
        let geoip = self.geoip.look();
        if geoip == Look::Reloaded {
            let database = self.geoip.current();
            health.set_geoip(database.built().as_second() as u64, database.source());
            info!(built = %database.built(), "GeoIP database reloaded");
        }
        let lists = self.lists.look();
        if lists == Look::Reloaded {
            let current = self.lists.current();
            health.set_lists(current.read());
            info!(
                lists = current.names().len(),
                prefixes = current.read().iter().map(|list| list.prefixes).sum::<usize>(),
                "source lists reloaded"
            );
        }
        let asn = self.asn.look();
        if asn == Look::Reloaded {
            let database = self.asn.current();
            health.set_asn(database.read());
            let built = database.read().map(|read| tracing::field::display(read.built));
            info!(built, networks = database.networks().len(), "ASN database reloaded");
        }
        state.swollen |= [geoip, lists, asn].contains(&Look::Reloaded);
        for (what, look, fault, lasts) in [
            (Reloadable::Geoip, geoip, self.geoip.fault().map(as_error), &mut state.geoip_fault),
            (Reloadable::Lists, lists, self.lists.fault().map(as_error), &mut state.lists_fault),
            (Reloadable::Asn, asn, self.asn.fault().map(as_error), &mut state.asn_fault),
        ] {
            if look == Look::Failed {
                health.reload_failed(what);
            }
            let why = fault.map(crate::error_chain);
            tell_fault(what, fault.zip(why.as_deref()), lasts);
            health.set_unread(what, why);
        }
    }
}

/// For databases of several types.
fn as_error<E: std::error::Error + 'static>(error: &E) -> &(dyn std::error::Error + 'static) {
    error
}

fn tell_not_followed<E: std::error::Error + 'static>(what: Reloadable, followed: Result<(), E>) {
    if let Err(error) = followed {
        error!(error = as_error(&error), "{} not reloaded; {}", what.subject(), what.meanwhile());
    }
}

/// Says in the log that a file cannot be read again, or can be. `fault` is the error and its text.
fn tell_fault(
    what: Reloadable,
    fault: Option<(&(dyn std::error::Error + 'static), &str)>,
    lasts: &mut Fault,
) {
    let (subject, meanwhile) = (what.subject(), what.meanwhile());
    let now = clock::now();
    let Some((error, why)) = fault else {
        if let Some(Notice::Ended(drains)) = lasts.worked(now) {
            info!(drains, "{subject} readable again; drains that used what was read before");
        }
        return;
    };
    match lasts.failed(why, now) {
        Some(Notice::Lasts(drains)) => error!(error, drains, "{subject} still not reloaded; {meanwhile}"),
        Some(_) => error!(error, "{subject} not reloaded; {meanwhile}"),
        None => {}
    }
}
