//! Redirects: where one leads, whether it is followed, and what it means when nobody is there.

use http::{StatusCode, header};
use towline_cause::{Cause, Failure, Step};

use crate::session::Asking;
use crate::transport::{Answer, SendFault};
use crate::url::{Origin, Url};
use crate::{fault, guard};

pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, if it may be followed.
pub(crate) fn redirect(
    asking: &Asking,
    answer: &Answer,
    registry: &Origin,
    local: bool,
) -> Result<Url, Failure> {
    let from = &answer.url;
    let refused = |why: String| {
        Failure::new(
            Cause::RegistryMisconfigured,
            asking.step,
            format!(
                "{}: {} redirects to a place that is not followed: {why}",
                asking.what, from.origin
            ),
        )
        .at(from.origin.to_string())
    };
    let location = answer
        .headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| refused("it names none".to_owned()))?;
    let next = from
        .join(location)
        .map_err(|why| refused(why.to_string()))?;
    for (origin, local) in [(registry, local), (&from.origin, answer.local)] {
        if let Some(why) = guard::refuse(origin, local, &next) {
            return Err(refused(why));
        }
    }
    Ok(next)
}

/// A place that the registry redirected to and that cannot be reached.
pub(crate) fn unreached(
    fault: SendFault,
    asking: &Asking,
    url: &Url,
    registry: &Origin,
) -> Failure {
    let beneath = fault::of_send(&fault, &url.origin, &asking.what, asking.step);
    if asking.step != Step::Fetch {
        return beneath.because(fault);
    }
    Failure::new(
        Cause::BlobHostUnreachable,
        Step::Fetch,
        format!(
            "{}: {registry} answers and has its blobs fetched from {}, which cannot be reached: {}",
            asking.what,
            url.origin,
            beneath.detail()
        ),
    )
    .at(url.origin.to_string())
    .with_others(vec![beneath])
    .because(fault)
}
