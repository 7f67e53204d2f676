//! A browser without a window, told what to do over a pipe (the protocol of its developer tools), so that it can be asked what a page is also where
//! scripts are off.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use towline_sys::testing::need_program;

/// A browser with one page.
pub(crate) struct Browser {
    to: pipe::Sender,
    from: BufReader<pipe::Receiver>,
    session: Value,
    asked: u64,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts one; none where there is none.
    pub(crate) async fn start() -> Option<Self> {
        let program = need_program("chromium-headless-shell")?;
        let folder = tempfile::tempdir().unwrap();
        let (into, out) = (folder.path().join("in"), folder.path().join("out"));
        for path in [&into, &out] {
            let made = Command::new("mkfifo").arg(path).status().await.unwrap();
            assert!(made.success());
        }
        let both = || {
            let mut options = pipe::OpenOptions::new();
            options.read_write(true).clone()
        };
        let to = both().open_sender(&into).unwrap();
        let from = both().open_receiver(&out).unwrap();
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<in 4>out"])
            .arg(program)
            .args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking"])
            .arg("--user-data-dir=profile")
            .current_dir(folder.path())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut browser = Self {
            to,
            from: BufReader::new(from),
            session: Value::Null,
            asked: 0,
            _child: child,
            _folder: folder,
        };
        let page = browser
            .ask("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        browser.session = browser.ask("Target.attachToTarget", attach).await["sessionId"].clone();
        browser.ask("Page.enable", json!({})).await;
        Some(browser)
    }

    async fn read(&mut self) -> Value {
        let mut message = Vec::new();
        let reading = self.from.read_until(0, &mut message);
        let read = tokio::time::timeout(Duration::from_secs(120), reading).await;
        read.expect("the browser answers").unwrap();
        message.pop();
        serde_json::from_slice(&message).unwrap()
    }

    /// Asks for something and waits for the answer; events before it are forgotten.
    async fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": parameters});
        if self.session.is_string() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).await.unwrap();
        loop {
            let mut answer = self.read().await;
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    async fn loaded(&mut self) {
        while self.read().await["method"] != "Page.loadEventFired" {}
    }

    /// Lets pages run scripts, or not.
    pub(crate) async fn scripts(&mut self, on: bool) {
        self.ask(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": !on}),
        )
        .await;
    }

    /// Goes to an address and waits until all of it is loaded.
    pub(crate) async fn go(&mut self, address: &str) {
        let went = self.ask("Page.navigate", json!({"url": address})).await;
        assert!(went["errorText"].is_null(), "{address}: {went}");
        self.loaded().await;
    }

    /// Where the page is.
    pub(crate) async fn address(&mut self) -> String {
        let history = self.ask("Page.getNavigationHistory", json!({})).await;
        let at = usize::try_from(history["currentIndex"].as_u64().unwrap()).unwrap();
        history["entries"][at]["url"].as_str().unwrap().to_owned()
    }

    /// The page as it is now, after what acts in it has acted.
    pub(crate) async fn dom(&mut self) -> String {
        let root = self.ask("DOM.getDocument", json!({})).await["root"]["nodeId"].clone();
        let html = self.ask("DOM.getOuterHTML", json!({"nodeId": root})).await;
        html["outerHTML"].as_str().unwrap().to_owned()
    }

    async fn find(&mut self, selector: &str) -> Value {
        let root = self.ask("DOM.getDocument", json!({})).await["root"]["nodeId"].clone();
        let asked = json!({"nodeId": root, "selector": selector});
        let found = self.ask("DOM.querySelector", asked).await["nodeId"].clone();
        assert!(found != 0, "there is no {selector}");
        found
    }

    /// Clicks with the mouse on what a selector finds, and waits for the page to which that leads.
    pub(crate) async fn click(&mut self, selector: &str) {
        let node = self.find(selector).await;
        self.ask("DOM.scrollIntoViewIfNeeded", json!({"nodeId": node}))
            .await;
        let boxes = self
            .ask("DOM.getContentQuads", json!({"nodeId": node}))
            .await;
        let corner = |at: usize| boxes["quads"][0][at].as_f64().unwrap();
        let (x, y) = (
            f64::midpoint(corner(0), corner(4)),
            f64::midpoint(corner(1), corner(5)),
        );
        for kind in ["mousePressed", "mouseReleased"] {
            let click = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            if kind == "mouseReleased" {
                self.tell("Input.dispatchMouseEvent", click).await;
            } else {
                self.ask("Input.dispatchMouseEvent", click).await;
            }
        }
        self.loaded().await;
    }

    /// Where the first thing that a selector finds begins, from the left.
    pub(crate) async fn left(&mut self, selector: &str) -> f64 {
        let node = self.find(selector).await;
        let asked = json!({"nodeId": node});
        let boxes = self.ask("DOM.getContentQuads", asked).await;
        boxes["quads"][0][0].as_f64().unwrap()
    }

    /// As `ask`, without waiting for the answer: the event that is waited for may come before it.
    async fn tell(&mut self, method: &str, parameters: Value) {
        self.asked += 1;
        let message = json!({"id": self.asked, "method": method, "params": parameters, "sessionId": self.session});
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).await.unwrap();
    }

    /// Types into what a selector finds.
    pub(crate) async fn write(&mut self, selector: &str, text: &str) {
        let node = self.find(selector).await;
        self.ask("DOM.focus", json!({"nodeId": node})).await;
        self.ask("Input.insertText", json!({"text": text})).await;
    }

    /// Shows pages as on a screen of this width, light or dark; how wide the page then is.
    pub(crate) async fn look(&mut self, width: u64, dark: bool) -> f64 {
        let screen =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.ask("Emulation.setDeviceMetricsOverride", screen).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", media).await;
        let layout = self.ask("Page.getLayoutMetrics", json!({})).await;
        layout["cssContentSize"]["width"].as_f64().unwrap()
    }

    /// Takes a picture of the whole page.
    pub(crate) async fn picture(&mut self, file: &Path) {
        use base64::Engine as _;
        let shot = self
            .ask(
                "Page.captureScreenshot",
                json!({"captureBeyondViewport": true}),
            )
            .await;
        let engine = base64::engine::general_purpose::STANDARD;
        std::fs::write(file, engine.decode(shot["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}
