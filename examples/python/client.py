#!/usr/bin/env python3
"""A card number in, a token out, and the number back only for those who may.

Reads the card number from standard input, never from an argument: arguments
show up in process lists and shell histories.

Needs grpcio 1.51 and protobuf 3.21 or newer, and no generated code: the messages
are made when the program runs, from a descriptor set of the API.
"""

import argparse
import contextlib
import pathlib
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

SERVICE = "coatcheck.v1.TokenizationService"
TIMEOUT = 10  # seconds, for each call

# What is read of google/rpc/status.proto and error_details.proto. The package
# googleapis-common-protos has the whole of them, where there is such a package.
STATUS_PROTO = """
  name: "status.proto" package: "status" syntax: "proto3"
  message_type {
    name: "Status"
    field { number: 3 name: "details" type: TYPE_MESSAGE type_name: ".status.Any" label: LABEL_REPEATED }
  }
  message_type {
    name: "Any"
    field { number: 1 name: "type_url" type: TYPE_STRING label: LABEL_OPTIONAL }
    field { number: 2 name: "value" type: TYPE_BYTES label: LABEL_OPTIONAL }
  }
  message_type {
    name: "ErrorInfo"
    field { number: 1 name: "reason" type: TYPE_STRING label: LABEL_OPTIONAL }
  }
"""


def message_class(pool, name):
    """Returns the class of the message with the given full name."""
    descriptor = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22 and newer
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


class Api:
    """The messages, enums and methods that a descriptor set describes."""

    def __init__(self, descriptors):
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
        self._pool = descriptor_pool.DescriptorPool()
        # A descriptor set lists a file after all that it imports.
        for file in files.file:
            self._pool.Add(file)

    def enum(self, name, value):
        """Returns the number of an enum's value."""
        return self._pool.FindEnumTypeByName(name).values_by_name[value].number

    def client(self, service, channel):
        """Returns a client whose attributes are the unary methods of a service."""
        return Client(self._pool, self._pool.FindServiceByName(service), channel)


class Client:
    """Calls the unary methods of a service, each with keyword arguments."""

    def __init__(self, pool, service, channel):
        for method in service.methods:
            setattr(self, method.name, self._method(pool, method, channel))

    @staticmethod
    def _method(pool, method, channel):
        request_class = message_class(pool, method.input_type.full_name)
        response_class = message_class(pool, method.output_type.full_name)
        call = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )

        def invoke(**fields):
            return call(request_class(**fields), timeout=TIMEOUT)

        return invoke


def connect(address, certs, caller):
    """Opens a channel as a caller: who that is, the client certificate says."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(certs / "ca.crt").read_bytes(),
        private_key=(certs / f"{caller}.key").read_bytes(),
        certificate_chain=(certs / f"{caller}.crt").read_bytes(),
    )
    return grpc.secure_channel(address, credentials)


def status_classes():
    """Returns classes that read google.rpc.Status and ErrorInfo."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(STATUS_PROTO, descriptor_pb2.FileDescriptorProto()))
    return message_class(pool, "status.Status"), message_class(pool, "status.ErrorInfo")


def reason(error):
    """Returns the machine-readable reason of a refusal, or an empty string."""
    status_class, error_info_class = status_classes()
    metadata = dict(error.trailing_metadata() or ())
    for detail in status_class.FromString(metadata.get("grpc-status-details-bin", b"")).details:
        if detail.type_url == "type.googleapis.com/google.rpc.ErrorInfo":
            return error_info_class.FromString(detail.value).reason
    return ""


def main():
    parser = argparse.ArgumentParser(
        description="Tokenize the card number on standard input, and get it back."
    )
    parser.add_argument("--address", default="127.0.0.1:7443", help="default: %(default)s")
    parser.add_argument(
        "--certs",
        type=pathlib.Path,
        default=".coatcheck/certs",
        help="ca.crt, and a .crt and .key for each caller; default: %(default)s",
    )
    parser.add_argument(
        "--descriptors",
        type=pathlib.Path,
        default="bin/coatcheck.binpb",
        help="descriptor set of the API; default: %(default)s",
    )
    args = parser.parse_args()
    card = sys.stdin.readline().strip()

    api = Api(args.descriptors.read_bytes())
    full = api.enum("coatcheck.v1.Reveal", "REVEAL_FULL")
    masked = api.enum("coatcheck.v1.Reveal", "REVEAL_MASKED")

    def as_caller(name):
        channel = open_channels.enter_context(connect(args.address, args.certs, name))
        return api.client(SERVICE, channel)

    with contextlib.ExitStack() as open_channels:
        checkout, payments, support = map(as_caller, ["checkout", "payments", "support"])

        # The shop hands in the number and keeps only the token.
        made = checkout.Tokenize(profile="card", value=card, metadata={"order": "1001"})
        print(f"checkout: {made.masked} is now {made.token}")

        # Who charges the card gets the number, for that purpose.
        answer = payments.Detokenize(token=made.token, purpose="charge", reveal=full)
        if answer.value != card.replace(" ", "").replace("-", "") or answer.reveal != full:
            sys.exit("payments: that is not the number that went in")
        print("payments: got the number back")

        # Support sees the last digits and no more.
        answer = support.Detokenize(token=made.token, purpose="support", reveal=masked)
        print(f"support: sees {answer.value}")
        try:
            support.Detokenize(token=made.token, purpose="support", reveal=full)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.PERMISSION_DENIED:
                raise
            print(f"support: refused the number, {error.code().name} {reason(error)}")
        else:
            sys.exit("support: got the whole number")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(" ".join(filter(None, [error.code().name, reason(error), error.details()])))
    except OSError as error:
        sys.exit(str(error))
