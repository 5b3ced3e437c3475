package tributary.stack;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.flink.formats.common.TimestampFormat;
import org.apache.flink.formats.json.debezium.DebeziumJsonDeserializationSchema;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.DataType;
import org.apache.flink.util.Collector;

/**
 * Reads messages, a line of JSON each, with Flink's format {@code debezium-json}, as a table with the columns {@code id},
 * {@code n} and {@code body}, and prints what Flink makes of them: a line for each row with its kind.
 */
public final class ReadDebeziumJson {
    private ReadDebeziumJson() {}

    public static void main(String[] arguments) throws Exception {
        DataType row = DataTypes.ROW(
            DataTypes.FIELD("id", DataTypes.INT()),
            DataTypes.FIELD("n", DataTypes.INT()),
            DataTypes.FIELD("body", DataTypes.STRING()));
        DebeziumJsonDeserializationSchema schema = new DebeziumJsonDeserializationSchema(
            row, List.of(), InternalTypeInfo.of(row.getLogicalType()), false, false, TimestampFormat.ISO_8601);
        schema.open(null);
        Collector<RowData> printer = new Collector<RowData>() {
            @Override public void collect(RowData data) {
                Object n = data.isNullAt(1) ? null : data.getInt(1);
                Object body = data.isNullAt(2) ? null : data.getString(2);
                System.out.println(data.getRowKind().shortString() + " " + data.getInt(0) + " " + n + " " + body);
            }

            @Override public void close() {}
        };
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            schema.deserialize(line.getBytes(StandardCharsets.UTF_8), printer);
        }
    }
}
