package org.elasticsearch.node;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.plugins.ClasspathPluginsService;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.plugins.PluginsLoader;
import org.elasticsearch.plugins.PluginsService;

/**
 * One real Elasticsearch node (REST over netty, cluster state, Lucene, translog) whose plugins are plain classes of the
 * class path. It lives in the package of {@link Node} because that class's construction is package-private.
 *
 * <p>Arguments: the home folder, whose {@code config/elasticsearch.yml} and {@code config/log4j2.properties} are read,
 * and the names of the plugin classes.
 */
public final class ClasspathNode {
    private ClasspathNode() {}

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]).toAbsolutePath();
        LogConfigurator.configureESLogging();
        LogConfigurator.registerErrorListener();
        Settings base = Settings.builder().put("path.home", home.toString()).build();
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(base, Map.of(), home.resolve("config"), () -> "node-0");
        LogConfigurator.setNodeName(Node.NODE_NAME_SETTING.get(environment.settings()));
        LogConfigurator.configure(environment, true);

        List<Plugin> plugins = new ArrayList<>();
        for (String name : List.of(arguments).subList(1, arguments.length)) {
            plugins.add(instantiate(name, environment.settings()));
        }
        PluginsLoader loader = PluginsLoader.createPluginsLoader(Set.of(), Set.of(), Map.of(), false);
        Node node = new Node(NodeConstruction.prepareConstruction(environment, loader, new NodeServiceProvider() {
            @Override PluginsService newPluginService(Environment e, PluginsLoader l) {
                return new ClasspathPluginsService(e, l, plugins);
            }
        }, true));

        CountDownLatch stop = new CountDownLatch(1);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stop.countDown();
            try {
                main.join(20_000);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }));
        node.start();
        stop.await();
        node.prepareForClose();
        node.close();
        node.awaitClose(10, TimeUnit.SECONDS);
    }

    /** A plugin has a constructor with the node's settings, or one without parameters. */
    private static Plugin instantiate(String name, Settings settings) throws ReflectiveOperationException {
        Class<?> type = Class.forName(name);
        try {
            return (Plugin) type.getConstructor(Settings.class).newInstance(settings);
        } catch (NoSuchMethodException withoutSettings) {
            return (Plugin) type.getConstructor().newInstance();
        }
    }
}
