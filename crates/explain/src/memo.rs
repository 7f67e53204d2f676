//! A question that is asked once, however many want the answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

/// Answers by question. Those who ask while the first asker waits get its answer too.
#[derive(Debug)]
pub(crate) struct Memo<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    pub(crate) async fn get<F: Future<Output = V>>(&self, key: K, ask: impl FnOnce() -> F) -> V {
        let cell = {
            let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry(key).or_default())
        };
        cell.get_or_init(ask).await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn many_ask_and_one_is_sent() {
        let memo = Memo::default();
        let sent = AtomicU32::new(0);
        let ask = |key: u8| {
            memo.get(key, || async {
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                7
            })
        };
        let answers = futures::future::join_all([ask(1), ask(1), ask(2), ask(1)]).await;
        assert_eq!(answers, [7; 4]);
        assert_eq!(sent.into_inner(), 2);
    }
}
