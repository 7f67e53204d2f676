//! What a watch showed, by namespace and name.

use std::collections::BTreeMap;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;

/// The namespace (empty for the cluster's own) and the name of an object.
pub(crate) type Key = (String, String);

/// The objects of one kind. A list that comes anew takes the place of the old one when it is whole.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    objects: BTreeMap<Key, K>,
    listing: Option<BTreeMap<Key, K>>,
    synced: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listing: None,
            synced: false,
        }
    }
}

/// The key of an object.
pub(crate) fn key<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Key {
    let metadata = object.metadata();
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

impl<K: Metadata<Ty = ObjectMeta>> Cache<K> {
    /// Takes in what a watch says.
    pub(crate) fn apply(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let key = key(&object);
                self.listing.get_or_insert_default().insert(key, object);
            }
            Event::InitDone => {
                self.objects = self.listing.take().unwrap_or_default();
                self.synced = true;
            }
            Event::Apply(object) => self.put(object),
            Event::Delete(object) => self.remove(&key(&object)),
        }
    }

    /// Whether a whole list was seen; before that nothing may be concluded from what is absent.
    pub(crate) fn synced(&self) -> bool {
        self.synced
    }

    /// Writes down an object that was just written, before the watch shows it.
    pub(crate) fn put(&mut self, object: K) {
        self.objects.insert(key(&object), object);
    }

    /// Forgets an object.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    /// An object by key.
    pub(crate) fn get(&self, key: &Key) -> Option<&K> {
        self.objects.get(key)
    }

    /// An object by key, to change what is remembered of it.
    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut K> {
        self.objects.get_mut(key)
    }

    /// All keys.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.objects.keys().cloned().collect()
    }

    /// All objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }

    /// The objects of a namespace.
    pub(crate) fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a K> {
        let from = (namespace.to_owned(), String::new());
        self.objects
            .range(from..)
            .take_while(move |(key, _)| key.0 == namespace)
            .map(|(_, object)| object)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(namespace: &str, name: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some(namespace.to_owned());
        pod.metadata.name = Some(name.to_owned());
        pod
    }

    #[test]
    fn a_new_list_replaces_the_old_one_when_it_is_whole() {
        let mut cache = Cache::default();
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(pod("a", "1")));
        assert!(!cache.synced());
        cache.apply(Event::InitDone);
        cache.put(pod("b", "2"));
        assert_eq!(cache.in_namespace("a").count(), 1);
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(pod("b", "3")));
        assert_eq!(cache.iter().count(), 2);
        cache.apply(Event::InitDone);
        assert_eq!(cache.keys(), [("b".to_owned(), "3".to_owned())]);
    }
}
