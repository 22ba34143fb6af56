//! A value that is made once for all who ask within a moment.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long a value is good although nothing is known to have changed.
const FRESH: Duration = Duration::from_secs(1);

/// Holds the last value, by what it was made from.
///
/// However many ask at once and however soon they hang up, one value is in the making at a time, and
/// all get the same allocation.
pub(super) struct Cache<K, T>(Arc<Mutex<Option<CachedValue<K, T>>>>);

struct CachedValue<K, T> {
    key: K,
    made: Instant,
    value: Arc<T>,
}

impl<K: PartialEq + Send + 'static, T: Send + Sync + 'static> Cache<K, T> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// The value for what `key` says now: the one from before, or a new one that `make` gives.
    /// `None` when making it panics.
    pub(super) async fn get<E: Send + 'static>(
        &self,
        key: impl FnOnce() -> K + Send + 'static,
        make: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Option<Result<Arc<T>, E>> {
        let slot = Arc::clone(&self.0);
        // A task of its own continues when its client has gone, so its work is not lost.
        let task = tokio::spawn(async move {
            let mut slot = slot.lock_owned().await;
            // Before making it: what changes meanwhile makes another one necessary.
            let key = key();
            if let Some(entry) = &*slot
                && entry.key == key
                && entry.made.elapsed() < FRESH
            {
                return Some(Ok(Arc::clone(&entry.value)));
            }
            let begun = Instant::now();
            let value = match tokio::task::spawn_blocking(make).await.ok()? {
                Ok(value) => Arc::new(value),
                Err(error) => return Some(Err(error)),
            };
            *slot = Some(CachedValue { key, made: begun, value: Arc::clone(&value) });
            Some(Ok(value))
        });
        task.await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    #[tokio::test]
    async fn one_value_is_made_for_all_who_ask_even_when_they_hang_up() {
        let cache = Cache::<u32, u32>::new();
        let count = Arc::new(AtomicU32::new(0));
        let count_and = |wait: Option<mpsc::Receiver<()>>, value| {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(wait) = wait {
                    wait.recv().unwrap();
                }
                Ok::<_, Infallible>(value)
            }
        };
        // Making it has begun and does not end before `finish`.
        let (finish, wait) = mpsc::channel();
        let mut first = Box::pin(cache.get(|| 7, count_and(Some(wait), 7)));
        while count.load(Ordering::SeqCst) == 0 {
            assert!(futures_util::future::poll_immediate(&mut first).await.is_none());
            tokio::task::yield_now().await;
        }
        // Its client hangs up, and two others ask.
        drop(first);
        let (mut a, mut b) =
            (Box::pin(cache.get(|| 7, count_and(None, 70))), Box::pin(cache.get(|| 7, count_and(None, 71))));
        assert!(futures_util::future::poll_immediate(&mut a).await.is_none());
        assert!(futures_util::future::poll_immediate(&mut b).await.is_none());
        finish.send(()).unwrap();
        let (a, b) = tokio::join!(a, b);
        let (a, b) = (a.unwrap().unwrap(), b.unwrap().unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!((*a, count.load(Ordering::SeqCst)), (7, 1));
        assert_eq!(*cache.get(|| 8, count_and(None, 8)).await.unwrap().unwrap(), 8);
        assert_eq!(count.load(Ordering::SeqCst), 2, "something changed");
    }
}
