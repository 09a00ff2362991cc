"""Messages of DMTF's registry Base (DSP2065, DSP8011) that this service uses.

The messages are DMTF's, word for word, so that an id means what the published registry says; resolutions are shorter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

BASE_VERSION = "1.16.0"

Severity = Literal["OK", "Warning", "Critical"]


@dataclass(frozen=True)
class Template:
    """A message of a registry: HTTP status where it is an error's own, severity, text with %1..., and what to do."""

    status: HTTPStatus
    severity: Severity
    text: str
    resolution: str = "None."

    @property
    def arguments(self) -> int:
        """How many arguments the text takes."""
        return next((number for number in range(9, 0, -1) if f"%{number}" in self.text), 0)


_CORRECT = "Correct the value in the request body and resubmit the request if the operation failed."
_QUERY = "Remove the query parameters and resubmit the request if the operation failed."
_BAD, _CONFLICT, _BUSY = HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE
_OK = HTTPStatus.OK

BASE: Mapping[str, Template] = {
    "AccessDenied": Template(
        HTTPStatus.FORBIDDEN,
        "Critical",
        "While attempting to establish a connection to '%1', the service denied access.",
        "Attempt to ensure that the URI is correct and that the service has the appropriate credentials.",
    ),
    "ActionNotSupported": Template(_BAD, "Critical", "The action %1 is not supported by the resource."),
    "ActionParameterMissing": Template(
        _BAD,
        "Critical",
        "The action %1 requires the parameter %2 to be present in the request body.",
        "Supply the action with the required parameter in the request body when the request is resubmitted.",
    ),
    "ActionParameterNotSupported": Template(
        _BAD,
        "Warning",
        "The parameter %1 for the action %2 is not supported on the target resource.",
        "Remove the parameter supplied and resubmit the request if the operation failed.",
    ),
    "ActionParameterUnknown": Template(
        _BAD,
        "Warning",
        "The action %1 was submitted with the invalid parameter %2.",
        "Correct the invalid action parameter and resubmit the request if the operation failed.",
    ),
    "ActionParameterValueConflict": Template(
        _CONFLICT,
        "Warning",
        "The parameter '%1' with the requested value of '%2' does not meet the constraints of the implementation.",
    ),
    "ActionParameterValueError": Template(
        _BAD, "Warning", "The value for the parameter %1 in the action %2 is invalid.", _CORRECT
    ),
    "ActionParameterValueFormatError": Template(
        _BAD,
        "Warning",
        "The value '%1' for the parameter %2 in the action %3 is of a different format than the parameter can accept.",
        _CORRECT,
    ),
    "ActionParameterValueNotInList": Template(
        _BAD,
        "Warning",
        "The value '%1' for the parameter %2 in the action %3 is not in the list of acceptable values.",
        "Choose a value from the enumeration list that the implementation can support and resubmit the request.",
    ),
    "ActionParameterValueTypeError": Template(
        _BAD,
        "Warning",
        "The value '%1' for the parameter %2 in the action %3 is of a different type than the parameter can accept.",
        _CORRECT,
    ),
    "ArraySizeTooLong": Template(
        _BAD,
        "Warning",
        "The array provided for property %1 exceeds the size limit %2.",
        "Resubmit the request with an appropriate array size.",
    ),
    "CouldNotEstablishConnection": Template(
        _BAD,
        "Critical",
        "The service failed to establish a connection with the URI '%1'.",
        "Ensure that the URI contains a valid and reachable node name, protocol information and other URI components.",
    ),
    "CreateFailedMissingReqProperties": Template(
        _BAD,
        "Critical",
        "The create operation failed because the required property %1 was missing from the request.",
        "Correct the body to include the required property with a valid value and resubmit the request.",
    ),
    "CreateLimitReachedForResource": Template(
        _BUSY,
        "Critical",
        "The create operation failed because the resource has reached the limit of possible resources.",
        "Delete resources and resubmit the request.",
    ),
    "EmptyJSON": Template(
        _BAD,
        "Warning",
        "The request body submitted contained an empty JSON object and the service is unable to process it.",
        "Add properties in the JSON object and resubmit the request.",
    ),
    "EventSubscriptionLimitExceeded": Template(
        _BUSY,
        "Critical",
        "The event subscription failed due to the number of simultaneous subscriptions exceeding the limit of the "
        "implementation.",
        "Reduce the number of other subscriptions before trying to establish the event subscription.",
    ),
    "GeneralError": Template(
        _BAD,
        "Critical",
        "A general error has occurred.  See Resolution for information on how to resolve the error, or "
        "@Message.ExtendedInfo if Resolution is not provided.",
        "See @Message.ExtendedInfo.",
    ),
    "HeaderInvalid": Template(
        _BAD, "Critical", "Header '%1' is invalid.", "Resubmit the request with a valid request header."
    ),
    "InsufficientPrivilege": Template(
        HTTPStatus.FORBIDDEN,
        "Critical",
        "There are insufficient privileges for the account or credentials associated with the current session to "
        "perform the requested operation.",
        "Either abandon the operation or change the associated access rights and resubmit the request.",
    ),
    "InternalError": Template(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Critical",
        "The request failed due to an internal service error.  The service is still operational.",
        "Resubmit the request.  If the problem persists, consider resetting the service.",
    ),
    "MalformedJSON": Template(
        _BAD,
        "Critical",
        "The request body submitted was malformed JSON and could not be parsed by the receiving service.",
        "Ensure that the request body is valid JSON and resubmit the request.",
    ),
    "NoOperation": Template(
        _BAD,
        "Warning",
        "The request body submitted contain no data to act upon and no changes to the resource took place.",
        "Add properties in the JSON object and resubmit the request.",
    ),
    "NoValidSession": Template(
        HTTPStatus.UNAUTHORIZED,
        "Critical",
        "There is no valid session established with the implementation.",
        "Establish a session before attempting any operations.",
    ),
    "OperationNotAllowed": Template(
        HTTPStatus.METHOD_NOT_ALLOWED, "Critical", "The HTTP method is not allowed on this resource."
    ),
    "OperationTimeout": Template(
        HTTPStatus.GATEWAY_TIMEOUT,
        "Warning",
        "A timeout internal to the service occured as part of the request.  Partial results may have been returned.",
        "Resubmit the request.  If the problem persists, consider resetting the service or provider.",
    ),
    "PasswordChangeRequired": Template(
        HTTPStatus.FORBIDDEN,
        "Critical",
        "The password provided for this account must be changed before access is granted.  PATCH the Password property "
        "for this account located at the target URI '%1' to complete this process.",
        "Change the password for this account using a PATCH to the Password property at the URI provided.",
    ),
    "PayloadTooLarge": Template(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "Critical",
        "The supplied payload exceeds the maximum size supported by the service.",
        "Check that the supplied payload is correct and supported by this service.",
    ),
    "PreconditionFailed": Template(
        HTTPStatus.PRECONDITION_FAILED,
        "Critical",
        "The ETag supplied did not match the ETag required to change this resource.",
        "Try the operation again using the appropriate ETag.",
    ),
    "PropertyMissing": Template(
        _BAD,
        "Warning",
        "The property %1 is a required property and must be included in the request.",
        "Ensure that the property is in the request body and has a valid value and resubmit the request.",
    ),
    "PropertyNotWritable": Template(
        _BAD,
        "Warning",
        "The property %1 is a read only property and cannot be assigned a value.",
        "Remove the property from the request body and resubmit the request if the operation failed.",
    ),
    "PropertyUnknown": Template(
        _BAD,
        "Warning",
        "The property %1 is not in the list of valid properties for the resource.",
        "Remove the unknown property from the request body and resubmit the request if the operation failed.",
    ),
    "PropertyValueConflict": Template(
        _CONFLICT,
        "Warning",
        "The property '%1' could not be written because its value would conflict with the value of the '%2' property.",
    ),
    "PropertyValueError": Template(_BAD, "Warning", "The value provided for the property %1 is not valid.", _CORRECT),
    "PropertyValueExternalConflict": Template(
        _CONFLICT,
        "Warning",
        "The property '%1' with the requested value of '%2' could not be written because the value is not available "
        "due to a configuration conflict.",
    ),
    "PropertyValueFormatError": Template(
        _BAD,
        "Warning",
        "The value '%1' for the property %2 is of a different format than the property can accept.",
        _CORRECT,
    ),
    "PropertyValueIncorrect": Template(
        _BAD,
        "Warning",
        "The property '%1' with the requested value of '%2' could not be written because the value does not meet the "
        "constraints of the implementation.",
    ),
    "PropertyValueNotInList": Template(
        _BAD,
        "Warning",
        "The value '%1' for the property %2 is not in the list of acceptable values.",
        "Choose a value from the enumeration list that the implementation can support and resubmit the request.",
    ),
    "PropertyValueOutOfRange": Template(
        _BAD,
        "Warning",
        "The value '%1' for the property %2 is not in the supported range of acceptable values.",
        _CORRECT,
    ),
    "PropertyValueTypeError": Template(
        _BAD,
        "Warning",
        "The value '%1' for the property %2 is of a different type than the property can accept.",
        _CORRECT,
    ),
    "QueryCombinationInvalid": Template(
        _BAD, "Warning", "Two or more query parameters in the request cannot be used together.", _QUERY
    ),
    "QueryNotSupportedOnOperation": Template(
        _BAD, "Warning", "Querying is not supported with the requested operation.", _QUERY
    ),
    "QueryNotSupportedOnResource": Template(
        _BAD, "Warning", "Querying is not supported on the requested resource.", _QUERY
    ),
    "QueryParameterOutOfRange": Template(
        _BAD, "Warning", "The value '%1' for the query parameter %2 is out of range %3.", _QUERY
    ),
    "QueryParameterUnsupported": Template(
        HTTPStatus.NOT_IMPLEMENTED, "Warning", "Query parameter '%1' is not supported.", _QUERY
    ),
    "QueryParameterValueFormatError": Template(
        _BAD,
        "Warning",
        "The value '%1' for the parameter %2 is of a different format than the parameter can accept.",
        _QUERY,
    ),
    "QueryParameterValueTypeError": Template(
        _BAD,
        "Warning",
        "The value '%1' for the query parameter %2 is of a different type than the parameter can accept.",
        _QUERY,
    ),
    "ResourceAlreadyExists": Template(
        _CONFLICT,
        "Critical",
        "The requested resource of type %1 with the property %2 with the value '%3' already exists.",
        "Do not repeat the create operation as the resource has already been created.",
    ),
    "ResourceAtUriInUnknownFormat": Template(
        _BAD,
        "Critical",
        "The resource at '%1' is in a format not recognized by the service.",
        "Place an image or resource or file that is recognized by the service at the URI.",
    ),
    "ResourceCannotBeDeleted": Template(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Critical",
        "The delete request failed because the resource requested cannot be deleted.",
        "Do not attempt to delete a non-deletable resource.",
    ),
    "ResourceExhaustion": Template(
        _BUSY,
        "Critical",
        "The resource '%1' was unable to satisfy the request due to unavailability of resources.",
        "Ensure that the resources are available and resubmit the request.",
    ),
    "ResourceInStandby": Template(
        _CONFLICT,
        "Critical",
        "The request could not be performed because the resource is in standby.",
        "Ensure that the resource is in the correct power state and resubmit the request.",
    ),
    "ResourceInUse": Template(
        _CONFLICT,
        "Warning",
        "The change to the requested resource failed because the resource is in use or in transition.",
        "Remove the condition and resubmit the request if the operation failed.",
    ),
    "ResourceMissingAtURI": Template(
        HTTPStatus.NOT_FOUND,
        "Critical",
        "The resource at the URI '%1' was not found.",
        "Place a valid resource at the URI or correct the URI and resubmit the request.",
    ),
    "ServiceShuttingDown": Template(
        _BUSY,
        "Critical",
        "The operation failed because the service is shutting down and can no longer take incoming requests.",
        "When the service becomes available, resubmit the request if the operation failed.",
    ),
    "ServiceTemporarilyUnavailable": Template(
        _BUSY,
        "Critical",
        "The service is temporarily unavailable.  Retry in %1 seconds.",
        "Wait for the indicated retry duration and retry the operation.",
    ),
    "SessionLimitExceeded": Template(
        _BUSY,
        "Critical",
        "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the "
        "implementation.",
        "Reduce the number of other sessions before trying to establish the session.",
    ),
    "StringValueTooLong": Template(
        _BAD,
        "Warning",
        "The string '%1' exceeds the length limit %2.",
        "Resubmit the request with an appropriate string length.",
    ),
    "StringValueTooShort": Template(
        _BAD,
        "Warning",
        "The string '%1' was under the minimum required length %2.",
        "Resubmit the request with an appropriate string length.",
    ),
    "Success": Template(_OK, "OK", "The request completed successfully.", "None"),
    "UnrecognizedRequestBody": Template(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "Warning",
        "The service detected a malformed request body that it was unable to interpret.",
        "Correct the request body and resubmit the request if it failed.",
    ),
}
"""Those messages of Base that this service uses, or that its resources may."""
