//! What is done while nothing is asked: the memory of start-up and of the last busy minute is given back.

use std::sync::Arc;
use std::time::Duration;

use towline_sys::{memory, task};

use crate::handlers::Registry;

/// How long nothing must be asked.
const QUIET: Duration = Duration::from_secs(2);

impl Registry {
    /// Gives memory back after start-up, and whenever requests came and then stopped coming. Never ends.
    pub(crate) async fn tidy_when_idle(self: Arc<Self>) {
        let (mut seen, mut tidied) = (0, None);
        loop {
            tokio::time::sleep(QUIET).await;
            let flights = self.state.flights();
            let begun = flights.begun();
            if begun == seen && tidied != Some(begun) && flights.is_empty() {
                task::blocking("give memory back", || {
                    memory::give_back();
                    memory::give_back_program();
                })
                .await;
                tidied = Some(begun);
            }
            seen = begun;
        }
    }
}
