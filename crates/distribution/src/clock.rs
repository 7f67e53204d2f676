//! What time a registry has, also where its certificate is refused for its dates: the one question whose answer tells a certificate that
//! has run out from a clock that is wrong.

use http::{HeaderMap, Method};
use towline_cause::{Cause, Failure, Step};

use crate::session::{Asking, Session, unanswered};
use crate::tls::Trust;
use crate::transport::Call;
use crate::watch::Watch;

impl Session {
    /// The `Date` of an answer to HEAD, as it was sent. Nothing that proves anybody is offered, and nothing else of the answer is
    /// used: whoever answers may be anybody.
    pub(crate) async fn clock(&self) -> Result<String, Failure> {
        let origin = self.origin()?;
        let asking = Asking::new(
            Method::HEAD,
            "/v2/".to_owned(),
            "HEAD /v2/".to_owned(),
            Step::Resolve,
        );
        let anybody = Trust {
            skip_verify: true,
            ..Trust::default()
        };
        let via = self.shared.transport.via(&anybody, self.endpoint.connect);
        let via = via.map_err(|why| Failure::new(Cause::Unknown, Step::Tls, why))?;
        let call = Call {
            method: Method::HEAD,
            url: self.base(origin.clone()),
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            guarded: false,
            credential: "nothing".to_owned(),
            via,
        };
        let answer = self.shared.transport.send(&call, &Watch::default()).await;
        let answer = answer.map_err(|fault| unanswered(&fault, &origin, &asking))?;
        answer.header("date").map(str::to_owned).ok_or_else(|| {
            Failure::new(
                Cause::RegistryMisconfigured,
                Step::Resolve,
                format!("{origin} says no date"),
            )
        })
    }
}
