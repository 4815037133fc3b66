from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="IdempotencyKey",
            fields=[
                ("digest", models.BinaryField(primary_key=True, serialize=False)),
                ("request", models.BinaryField()),
                ("status", models.SmallIntegerField()),
                ("fields", models.JSONField()),
                ("body", models.BinaryField()),
                ("changed", models.JSONField()),
                ("time_created", models.DateTimeField()),
                ("time_expires", models.DateTimeField()),
            ],
            options={
                "db_table": "api_idempotency_key",
                "indexes": [models.Index(fields=["time_expires"], name="api_idempotency_expires")],
            },
        ),
    ]
