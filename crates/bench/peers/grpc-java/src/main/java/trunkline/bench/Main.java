package trunkline.bench;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;

/** grpc-java on Netty, as its examples have one write it; the direct executor is what it advises for speed. */
public final class Main {
  static final int RECEIVE_LIMIT = 64 << 20;

  private Main() {}

  public static void main(String[] arguments) throws IOException, InterruptedException {
    String mode = arguments.length > 0 ? arguments[0] : "";
    switch (mode) {
      case "server": {
        Map<String, String> options = options(arguments, "--port");
        Server.serve(number(options, "--port", 65_535));
        break;
      }
      case "client": {
        Map<String, String> options =
            options(arguments, "--target", "--calls", "--in-flight", "--payload");
        Client.run(
            required(options, "--target"),
            number(options, "--calls", Integer.MAX_VALUE),
            number(options, "--in-flight", Integer.MAX_VALUE),
            options.containsKey("--payload") ? number(options, "--payload", RECEIVE_LIMIT) : 16);
        break;
      }
      default:
        refuse("neither server nor client");
    }
  }

  private static Map<String, String> options(String[] arguments, String... known) {
    Map<String, String> options = new HashMap<>();
    for (int at = 1; at < arguments.length; at += 2) {
      String name = arguments[at];
      if (!java.util.List.of(known).contains(name)) {
        refuse(name + ": not understood");
      }
      if (at + 1 == arguments.length) {
        refuse(name + ": value missing");
      }
      options.put(name, arguments[at + 1]);
    }
    return options;
  }

  private static String required(Map<String, String> options, String name) {
    if (!options.containsKey(name)) {
      refuse(name + " is missing");
    }
    return options.get(name);
  }

  private static int number(Map<String, String> options, String name, int most) {
    String text = required(options, name);
    try {
      int number = Integer.parseInt(text);
      if (number >= 0 && number <= most) {
        return number;
      }
    } catch (NumberFormatException error) {
      // Said below.
    }
    throw refuse(name + " " + text + ": not understood");
  }

  /** Ends the program: the command line asks for what it does not do. */
  private static IllegalArgumentException refuse(String why) {
    System.err.println(why);
    System.exit(2);
    return new IllegalArgumentException(why);
  }
}
