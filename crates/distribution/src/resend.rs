//! A request, sent again where the retry table says so.

use crate::facts::Fact;
use crate::options::Retries;
use crate::retry::{self, Seen, retry_after};
use crate::transport::{Answer, Call, SendFault, Transport};
use crate::watch::Watch;

/// Sends until an answer is final or attempts run out; gives the last answer or fault.
pub(crate) async fn resend(
    transport: &Transport,
    call: &Call,
    what: &str,
    retries: &Retries,
    watch: &Watch,
) -> Result<Answer, SendFault> {
    let mut attempt = 1;
    loop {
        let ended = transport.send(call, watch).await;
        let (seen, why) = match &ended {
            Ok(answer) => {
                let wait = answer
                    .header("retry-after")
                    .and_then(|value| retry_after(value, jiff::Timestamp::now()));
                (
                    retry::of_status(answer.status.as_u16(), wait),
                    answer.status.to_string(),
                )
            }
            Err(fault @ SendFault::HeadersTimeout(_)) if call.via.silence.is_some() => {
                (Seen::Final, fault.to_string())
            }
            Err(fault) => (retry::of_fault(fault), fault.to_string()),
        };
        if seen == Seen::Final {
            return ended;
        }
        let Some(wait) = retry::next(seen, attempt, retries, fastrand::f64()) else {
            return ended;
        };
        watch.tell(|| Fact::Retry {
            what: what.to_owned(),
            attempt,
            wait_millis: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            why,
        });
        drop(ended);
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}
