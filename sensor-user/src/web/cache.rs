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
pub(super) struct Cache<K, T>(Arc<Mutex<Option<Entry<K, T>>>>);

struct Entry<K, T> {
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
            *slot = Some(Entry { key, made: begun, value: Arc::clone(&value) });
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

    #[tokio::test(flavor = "multi_thread")]
    async fn one_value_is_made_for_all_who_ask_even_when_they_hang_up() {
        let cache = Arc::new(Cache::<u32, u32>::new());
        let count = Arc::new(AtomicU32::new(0));
        let ask = |key: u32| {
            let (cache, counter) = (Arc::clone(&cache), Arc::clone(&count));
            async move {
                let make = move || {
                    std::thread::sleep(Duration::from_millis(20));
                    counter.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(key)
                };
                cache.get(move || key, make).await.unwrap().unwrap()
            }
        };
        let gone = tokio::time::timeout(Duration::from_millis(1), ask(7)).await;
        assert!(gone.is_err());
        let (a, b) = tokio::join!(ask(7), ask(7));
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(*ask(8).await, 8);
        assert_eq!(count.load(Ordering::SeqCst), 2, "something changed");
    }
}
