//! Events as the kubelet writes them: core/v1, counted, thinned and merged by the rules of the client library.

pub(crate) mod recorder;
pub(crate) mod reference;

pub(crate) use recorder::Recorder;
pub(crate) use towline_pod::pull::EventType as Kind;
