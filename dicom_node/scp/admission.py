"""Admission: who may open an association, and how many at one time."""

from dataclasses import dataclass

from dicom_node.settings import AdmissionSettings


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Whom the application entity lets in, in the terms of its association negotiation (PS3.8 Section 9.3.4)."""

    #: Empty: any. Another calling AE title is rejected for good: 1, 1, 3.
    calling_ae_titles: tuple[str, ...]
    #: Where true, another called AE title than ours is rejected for good: 1, 1, 7.
    called_ae_title_must_match: bool
    #: One more is rejected for now: 2, 3, 2.
    maximum_associations: int
    #: The same of one peer: one calling AE title at one address.
    maximum_associations_per_peer: int

    @classmethod
    def from_settings(cls, settings: AdmissionSettings) -> "Admission":
        """Titles without the spaces around them, which carry no meaning (PS3.5 Table 6.2-1)."""
        return cls(
            calling_ae_titles=tuple(title.strip() for title in settings.calling_ae_titles),
            called_ae_title_must_match=settings.called_ae_title_must_match,
            maximum_associations=settings.maximum_associations,
            maximum_associations_per_peer=settings.maximum_associations_per_peer,
        )

    @property
    def warning(self) -> str | None:
        """What a person should know about an open door."""
        if self.calling_ae_titles:
            return None
        return "any AE title may store here; list the senders in calling_ae_titles of [admission]"
