//! The image store from the command line while a node owns it.

use towline_sys::testing::{need_program, need_root};

use crate::support::node::Node;
use crate::support::program::{text, towline};
use crate::support::registry::{hello, push};

#[test]
fn images_are_looked_after_while_the_node_runs() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    let image = format!("{registry}/lib/app:1.0");
    push(&hello("kept"), registry, "lib/app", "1.0", None);
    let unused = format!("{registry}/lib/unused:1.0");
    push(&hello("not kept"), registry, "lib/unused", "1.0", None);
    node.run("good", &image, "");
    node.wait_status("good", "Running", 60);
    let run = |args: &[&str]| {
        let mut command = towline();
        command.args(args).arg("--data-dir").arg(node.data());
        command.output().unwrap()
    };
    let towline = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    };
    towline(&["pull", &unused]);
    let list = towline(&["images"]);
    assert!(list.contains(&image) && list.contains(&unused), "{list}");
    assert!(towline(&["df"]).contains("images no container holds"));
    assert!(towline(&["inspect", &image]).contains("unpackedSize"));
    let verified = towline(&["verify"]);
    assert!(
        verified.contains("2 images, 0 things are damaged"),
        "{verified}"
    );
    let pruned = towline(&["prune", "--all"]);
    assert!(pruned.starts_with("1 images"), "{pruned}");
    let list = towline(&["images"]);
    assert!(list.contains(&image) && !list.contains(&unused), "{list}");

    let removed = run(&["rm", "nothing:1"]);
    assert!(!removed.status.success());
    assert!(text(&removed).contains("there is no image \"nothing:1\" here"));
}
