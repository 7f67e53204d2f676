//! The base of the API: is a registry there, how does it want to be logged in to, and does it want TLS.

use http::{HeaderMap, Method, StatusCode};
use towline_cause::{Cause, Failure, Step};

use crate::challenge::{self, Challenge};
use crate::client::Ping;
use crate::facts::Fact;
use crate::session::{Asking, Got, Session, unanswered};
use crate::transport::{Answer, SendFault};
use crate::url::{Origin, Scheme};

impl Session {
    /// Asks `/v2/` without any credential.
    pub(crate) async fn ping(&self) -> Result<Ping, Failure> {
        let asking = Asking::new(
            Method::GET,
            "/v2/".to_owned(),
            "GET /v2/".to_owned(),
            Step::Resolve,
        );
        for _ in 0..2 {
            let origin = self.origin()?;
            let call = self.call(
                &asking,
                &self.base(origin.clone()),
                HeaderMap::new(),
                "nothing",
            );
            let answer = match self.send(&asking, &call).await {
                Ok(answer) => answer,
                Err(fault) if self.turn(&fault) => continue,
                Err(fault) => return Err(unanswered(&fault, &origin, &asking)),
            };
            let Some(answer) = self.unless_tls_wanted(answer, &asking).await? else {
                continue;
            };
            let challenges = challenge::read(&answer.headers);
            if answer.status != StatusCode::OK && answer.status != StatusCode::UNAUTHORIZED {
                let got = Got {
                    answer,
                    elsewhere: false,
                };
                return Err(crate::refused::of_answer(self, &asking, got).await);
            }
            let is_page = answer
                .header("content-type")
                .is_some_and(|kind| kind.starts_with("text/html"));
            if answer.status == StatusCode::OK && is_page {
                let said = self.said(answer, &asking).await;
                return Err(Failure::new(
                    Cause::NotARegistry,
                    Step::Resolve,
                    format!(
                        "GET /v2/ at {origin} gives a web page {:?}, not a registry's answer",
                        said.message
                    ),
                )
                .at(origin.to_string()));
            }
            if answer.status == StatusCode::UNAUTHORIZED {
                self.tell_challenges(&origin, &challenges);
            }
            return Ok(Ping {
                status: answer.status.as_u16(),
                endpoint: origin.to_string(),
                challenges: challenges.iter().map(Challenge::fact).collect(),
            });
        }
        let origin = self.origin()?;
        Err(unanswered(&SendFault::TlsOnPlain, &origin, &asking))
    }

    /// Servers that speak TLS tell a plain HTTP request so with a 400. `None` when the scheme was changed.
    pub(crate) async fn unless_tls_wanted(
        &self,
        answer: Answer,
        asking: &Asking,
    ) -> Result<Option<Answer>, Failure> {
        if answer.status != StatusCode::BAD_REQUEST || answer.url.origin.scheme != Scheme::Http {
            return Ok(Some(answer));
        }
        let origin = answer.url.origin.clone();
        let said = self.said(answer, asking).await;
        let words = said.message.to_ascii_lowercase();
        if !(words.contains("http request") && words.contains("https")) {
            return Err(crate::refused::of_status(
                &self.target,
                &origin,
                asking,
                StatusCode::BAD_REQUEST,
                &said,
                None,
            ));
        }
        if self.turn(&SendFault::TlsOnPlain) {
            return Ok(None);
        }
        Err(Failure::new(
            Cause::HttpsRegistryOverHttp,
            Step::Connect,
            format!(
                "{}: {origin} was asked over plain HTTP and wants HTTPS: it answered {}",
                asking.what,
                said.with_status(StatusCode::BAD_REQUEST)
            ),
        )
        .at(origin.to_string()))
    }

    /// What `/v2/` says of how to log in, and whether it is this machine that says so.
    pub(crate) async fn ping_challenges(
        &self,
        origin: &Origin,
    ) -> Result<(Vec<Challenge>, bool), Failure> {
        let asking = Asking::new(
            Method::GET,
            "/v2/".to_owned(),
            "GET /v2/".to_owned(),
            Step::Authenticate,
        );
        let call = self.call(
            &asking,
            &self.base(origin.clone()),
            HeaderMap::new(),
            "nothing",
        );
        let answer = self
            .send(&asking, &call)
            .await
            .map_err(|fault| unanswered(&fault, origin, &asking))?;
        let challenges = challenge::read(&answer.headers);
        self.tell_challenges(origin, &challenges);
        Ok((challenges, answer.local))
    }

    pub(crate) fn tell_challenges(&self, origin: &Origin, challenges: &[Challenge]) {
        self.watch.tell(|| Fact::Challenge {
            endpoint: origin.to_string(),
            challenges: challenges.iter().map(Challenge::fact).collect(),
        });
    }
}
