//! The image store of a data directory: asked through the node while one runs on it, else directly.

use std::path::Path;

use anyhow::Context as _;
use towline_images::Images;
use towline_node::Facts;
use towline_oci::Platform;
use towline_runtime::control::{self, Answer, Question};

/// Asks the store. The answer is of the kind that the question asks for.
pub(crate) async fn ask(data_dir: &Path, question: Question) -> anyhow::Result<Answer> {
    if let Some(facts) = Facts::read(data_dir) {
        let socket = control::socket_beside(&facts.cri);
        let answer = control::ask(&socket, &question).await;
        return answer.with_context(|| format!("ask the node {}", facts.node));
    }
    let images = open(data_dir)?;
    control::answer(&images, question)
        .await
        .with_context(|| format!("look into the images of {}", data_dir.display()))
}

/// What is said where a node of another version answers something else.
pub(crate) fn unexpected() -> anyhow::Error {
    anyhow::anyhow!("the node answers something else than was asked: it is of another version")
}

/// The images of a data directory that no node uses. Nothing is asked of a registry through them.
fn open(data_dir: &Path) -> anyhow::Result<Images> {
    let client = towline_distribution::Client::new(towline_distribution::Options::default())?;
    super::pull::open(data_dir, client, Platform::host())
}
