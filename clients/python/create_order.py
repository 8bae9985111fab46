"""Creates one order over gRPC with generated stubs and prints its id. Run it by clients/python/run."""

import argparse
import sys

import grpc
from minishop.orders.v1 import orders_pb2, orders_pb2_grpc


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addr", default="127.0.0.1:50051", help="HOST:PORT of the gRPC listener")
    parser.add_argument("--key", help="idempotency key; the server makes one if there is none")
    args = parser.parse_args()

    request = orders_pb2.CreateOrderRequest(
        customer_id="c1",
        items=[orders_pb2.OrderItem(product_id="p1", qty=2, price=10.5)],
    )
    metadata = [("x-idempotency-key", args.key)] if args.key else []
    with grpc.insecure_channel(args.addr) as channel:
        stub = orders_pb2_grpc.OrderServiceStub(channel)
        try:
            reply = stub.CreateOrder(request, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    print(reply.order_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
