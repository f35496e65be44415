import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Creates, changes, fetches and deletes items, as a client without any setting does, and prints each status. */
class Items {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    private static HttpResponse<String> send(URI uri, String method, BodyPublisher body, boolean waits)
            throws Exception {
        var request = HttpRequest.newBuilder(uri)
                .method(method, body)
                .header("Content-Type", "application/json")
                .expectContinue(waits)
                .build();
        var response = CLIENT.send(request, BodyHandlers.ofString());
        System.out.println(method + " " + response.statusCode() + " " + response.version());
        return response;
    }

    private static BodyPublisher item(int spaces) {
        return BodyPublishers.ofString("{\"name\": \"x\"" + " ".repeat(spaces) + "}");
    }

    public static void main(String[] arguments) throws Exception {
        var items = URI.create(arguments[0]);
        // The client writes what is long in many pieces, and waits before it does where it is told to.
        for (int spaces : new int[] {0, 30_000}) {
            for (boolean waits : new boolean[] {false, true}) {
                var location = send(items, "POST", item(spaces), waits).headers().firstValue("location").get();
                var created = items.resolve(location);
                send(created, "PATCH", BodyPublishers.ofString("{\"name\": \"y\"}"), waits);
                System.out.println(send(created, "GET", BodyPublishers.noBody(), false).body().contains("\"y\""));
                send(created, "HEAD", BodyPublishers.noBody(), false);
                send(created, "DELETE", BodyPublishers.noBody(), false);
            }
        }
        var request = HttpRequest.newBuilder(items).POST(item(0)).header("Content-Type", "application/json").build();
        var answers = IntStream.range(0, 50)
                .mapToObj(number -> CLIENT.sendAsync(request, BodyHandlers.ofString()))
                .collect(Collectors.toList());
        System.out.println(answers.stream().map(answer -> answer.join().statusCode()).distinct()
                .collect(Collectors.toList()));
    }
}
