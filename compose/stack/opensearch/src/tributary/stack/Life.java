package tributary.stack;

import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;

/** What the launchers of all versions do alike. */
final class Life {
    private Life() {}

    /** Reads {@code config/opensearch.yml} and {@code config/log4j2.properties} of a home folder. */
    static Environment environment(String folder) throws Exception {
        Path home = Path.of(folder).toAbsolutePath();
        Settings base = Settings.builder().put("path.home", home.toString()).build();
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(base, Map.of(), home.resolve("config"), () -> "node-0");
        LogConfigurator.setNodeName(Node.NODE_NAME_SETTING.get(environment.settings()));
        LogConfigurator.configure(environment);
        return environment;
    }

    /** Starts a node, and closes it when the process is asked to end. */
    static void run(Node node) throws Exception {
        CountDownLatch stop = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception failure) {
                failure.printStackTrace();
            }
            stop.countDown();
        }));
        node.start();
        stop.await();
    }
}
