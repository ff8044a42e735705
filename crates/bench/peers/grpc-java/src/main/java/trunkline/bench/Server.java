package trunkline.bench;

import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.net.InetSocketAddress;

/** Serves until it is killed. */
final class Server {
  private Server() {}

  static void serve(int port) throws IOException, InterruptedException {
    io.grpc.Server server =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", port))
            .directExecutor()
            .maxInboundMessageSize(Main.RECEIVE_LIMIT)
            .addService(new Service())
            .build()
            .start();
    System.out.println("listening 127.0.0.1:" + server.getPort());
    System.out.flush();
    server.awaitTermination();
  }
}
