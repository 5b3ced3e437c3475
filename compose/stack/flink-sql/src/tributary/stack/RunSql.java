package tributary.stack;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/**
 * Runs statements of Flink SQL in this process, each of which ends with a semicolon and a line's end; the last one writes to a table, and is
 * waited for. Prints how long it took, the CPU seconds of that time, and the most memory that the process ever had.
 *
 * <p>{@code RunSql batch|streaming <file>}
 */
public final class RunSql {
    /** A table environment takes no settings as statements. */
    private static final Pattern SETTING = Pattern.compile("SET '([^']*)' = '([^']*)'");

    private RunSql() {}

    public static void main(String[] arguments) throws Exception {
        EnvironmentSettings.Builder settings = EnvironmentSettings.newInstance();
        TableEnvironment tables = TableEnvironment.create(
            (arguments[0].equals("batch") ? settings.inBatchMode() : settings.inStreamingMode()).build());
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        String[] statements = Files.readString(Path.of(arguments[1])).split(";\\n");
        for (int n = 0; n < statements.length - 1; n++) {
            Matcher setting = SETTING.matcher(statements[n]);
            if (setting.matches()) {
                tables.getConfig().set(setting.group(1), setting.group(2));
            } else {
                tables.executeSql(statements[n]);
            }
        }
        long began = System.nanoTime();
        long used = system.getProcessCpuTime();
        tables.executeSql(statements[statements.length - 1]).await();
        double cpu = (system.getProcessCpuTime() - used) / 1e9;
        double seconds = (System.nanoTime() - began) / 1e9;
        System.out.printf(Locale.ROOT, "seconds=%.3f cpu_seconds=%.3f rss_mb=%d%n", seconds, cpu, peak() / 1024);
        System.exit(0);
    }

    /** In kilobytes ({@code proc(5)}: {@code VmHWM}). */
    private static long peak() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", ""));
            }
        }
        throw new IOException("/proc/self/status does not say how much memory the process had");
    }
}
