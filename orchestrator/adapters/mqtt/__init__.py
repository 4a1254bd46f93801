"""The message broker, through paho-mqtt driven by the event loop."""

from orchestrator.adapters.mqtt.bus import MqttBus, MqttSettings

__all__ = ["MqttBus", "MqttSettings"]
